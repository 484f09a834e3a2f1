-- rows.lua: the accounts of a call, one per line of its charging. A part of call.lua,
-- where the arguments are explained.
--
-- Both halves change them here only; call.lua writes them, all at once.
local call, A, K = redis.call, ARGV, KEYS
local VERSION, HOLDS, DUE, LOST, DONE, EVENTS, STOPS, NOTES, TRACES = 1, 2, 3, 4, 5, 9, 10, 11, 13
local SESSION_TTL_S, DONE_TTL_S, GRACE_S = '2592000', '99000', 3456000
local CLOCK_STEP_MS, DAY_MS = 60000, 86400000
-- No process misses more while it makes no call. A version that is higher by more has
-- begun anew after one that counted from 1, as earlier ones of this library did.
local CHANGES_MAX = 4294967296

-- A row: money posted, held, unconfirmed; tokens posted, held, unconfirmed;
-- steps, model calls, tool calls. A session's: started, last active, active and
-- ended (-1 = not) in ms.
local NUMBERS, TIMES, NUMBERS_BYTES = '<i8i8i8i8i8i8i4i4i4', '<i8i8i8i8', 60
local COST, TOKENS, STEPS, MODELS, TOOLS, ACTIVE = 1, 4, 7, 8, 9, 12
local STARTED, LAST, ENDED = 10, 11, 13

-- Commands that take back what was written; the last one is the first to be run.
local undo = {}

-- Where the arguments stand, see call.lua. They are few, because each takes the server
-- as long as unpacking two numbers does.
local CALL, SETTLED_ID, SETTLED_CONTENT, EVENT, TRACE, NOTE = 1, 2, 3, 4, 5, 6
local RESERVED_ID, HOLD, EXPIRY, NEXT_TRACE, EVENTS_KEPT = 7, 8, 9, 10, 11
local LIMITS, RAISED, CHARGED, WATCHED, ABOUT = 12, 13, 14, 15, 16
local ACTION, RULE, TELLING = 17, 18, 19
local STOP_FIELDS = 20 -- the first one
-- What A[CALL] is made of, and where each half begins there.
local BEGINNING, HALF, SETTLED, RESERVED, ACTIVE_AT = '<i4i4i8', '<i8i8i8i4', 17, 45, 73
local LINE, LINE_BYTES = '<i4i8i8i8i8i8i8', 52

local count, sessions, seen = struct.unpack(BEGINNING, A[CALL])
local enforced = string.byte(A[TELLING]) == 49
local project = string.sub(K[VERSION], 1, -8) -- what its keys begin with

local function int(x) return string.format('%.0f', x) end
-- Of the text of a hold: cost, tokens, expiry, and where its digests begin.
local function split(hold)
  return string.match(hold, '^[^\31]*\31([^\31]*)\31([^\31]*)\31([^\31]*)\31()')
end

local version = call('GET', K[VERSION]) or '0'
if version - seen < 0 or seen > 0 and version - seen > CHANGES_MAX then
  return {'rolled back', tonumber(version)}
end

local rows, raised_at = {}, 1
for i = 1, count do
  local key, found = K[TRACES + i], nil
  if i <= sessions then found = call('HMGET', key, 'n', 'x', 't')
  else found = call('HMGET', key, 'n', 'x') end
  local row = {dirty = false, is_new = not found[1], stop = '', raised = '', alerted = '',
    struct.unpack(NUMBERS, found[1] or string.rep('\0', NUMBERS_BYTES))}
  row[STARTED] = nil -- the position that unpack returns last
  if found[3] then
    row[STARTED], row[LAST], row[ACTIVE], row[ENDED] = struct.unpack(TIMES, found[3])
  end
  if found[2] then
    row.stop, row.raised, row.alerted = string.match(found[2], '^(.-)\30(.-)\30(.*)$')
  end
  local known = ''
  if A[RAISED] ~= '' then known, raised_at = struct.unpack('s', A[RAISED], raised_at) end
  if row.raised ~= known then return {'raised', i, row.raised} end
  rows[i] = row
end

-- Whether line i binds, and its limits: cost, tokens, steps, model calls, tool calls,
-- active ms.
local function limits_of(i) return struct.unpack(LINE, A[LIMITS], LINE_BYTES * (i - 1) + 1) end

-- What only few calls ask of line i: its scope, expiry, and whose it is.
local function about(i)
  local scope, til, who, at = nil, nil, nil, 1
  for _ = 1, i do scope, til, who, at = struct.unpack('sss', A[ABOUT], at) end
  return scope, til, who
end

-- How long session i was active until `half` of the call.
local function active_of(i, half)
  local later = half == RESERVED and 8 or 0
  return (struct.unpack('<i8', A[CALL], ACTIVE_AT + 16 * (i - 1) + later))
end

-- Opens what is new, and remembers what the thresholds watch.
local function open(now, half)
  for i = 1, sessions do
    local row = rows[i]
    if not row[STARTED] then
      row[STARTED] = now - active_of(i, half)
      row[LAST], row[ACTIVE], row[ENDED], row.opens = row[STARTED], 0, -1, true
    end
  end
  local before = {}
  if A[WATCHED] ~= '' then
    for i = 1, count do before[i] = {unpack(rows[i], 1, ACTIVE)} end
  end
  return before
end

local function touch(i, now, half)
  local row = rows[i]
  row.dirty = true
  if i > sessions then return end
  local gap = now - row[LAST]
  if math.floor(row[LAST] / DAY_MS) ~= math.floor(now / DAY_MS) then row.lives = true end
  if gap > 0 then
    row[ACTIVE] = row[ACTIVE] + math.min(active_of(i, half), gap)
    row[LAST] = now
  elseif gap < -CLOCK_STEP_MS then row[LAST] = now end
  row[ENDED] = -1
end

-- Notes what people were told of a row, and returns whether that is news.
local function note_told(row, label)
  if string.find('\31' .. row.alerted .. '\31', '\31' .. label .. '\31', 1, true) then
    return false
  end
  row.alerted = row.alerted == '' and label or row.alerted .. '\31' .. label
  return true
end

-- The thresholds that were crossed: their number among all, and what is posted.
local function crossings(before)
  local found, at, number = {}, 1, 0
  while at <= #A[WATCHED] do
    local i, slot, value, label
    i, slot, value, label, at = struct.unpack('<i4i4i8s', A[WATCHED], at)
    local was, row = before[i], rows[i]
    number = number + 1
    -- Without a raise, one below what was posted has been lowered, and is told now.
    local is_crossed = value <= row[slot] and ((was[slot] or 0) < value or row.raised == '')
    if is_crossed and note_told(row, label) then
      found[#found + 1] = {number, int(row[slot]), i = i, slot = slot, label = label}
    end
  end
  return found
end

-- How an id has finished: s (settled) or r (released), with its digests. A released
-- hold may have been settled later, and then both are found.
local function finished(id)
  local released
  for i = DONE, EVENTS - 1 do
    local known = call('HGET', K[i], id)
    if known and string.sub(known, 1, 1) == 's' then return known end
    released = released or known
  end
  return released
end
local function finish(id, content, digest)
  -- Taken back, it was released at most: a hold that is open counts before that.
  undo[#undo + 1] = {'HSET', K[DONE], id, 'r' .. content .. digest}
  call('HSET', K[DONE], id, 's' .. content .. digest)
  -- Each anew: a clock that is ahead may have begun the period a day before others.
  call('EXPIRE', K[DONE], DONE_TTL_S)
end

local function loops() return loops_of(K[TRACES], undo, A[RULE]) end

