-- rows.lua: the accounts of a call, one per line of its charging. A part of call.lua,
-- where the arguments are explained.
--
-- Both halves change them here only; call.lua writes them, all at once.
local call, A, K = redis.call, ARGV, KEYS
local VERSION, HOLDS, DUE, LOST, DONE, EVENTS, STOPS, TRACES = 1, 2, 3, 4, 5, 9, 10, 11
local SESSION_TTL_S, DONE_TTL_S, ROLLUP_TTL_S, GRACE_S = '2592000', '99000', '34560000', 3456000
local CLOCK_STEP_MS, DAY_MS = 60000, 86400000

-- A row: money posted, held, unconfirmed; tokens posted, held, unconfirmed;
-- steps, model calls, tool calls. A session's: started, last active, active and
-- ended (-1 = not) in ms.
local NUMBERS, TIMES, SUMS = '<i8i8i8i8i8i8i4i4i4', '<i8i8i8i8', '<i8i8i4i4i8i8i4i4i4i8i8i8i8i8i8i8'
local SUMS_BYTES = 108
local COST, TOKENS, STEPS, MODELS, TOOLS, ACTIVE = 1, 4, 7, 8, 9, 12
local STARTED, LAST, ENDED = 10, 11, 13

-- Commands that take back what was written; the last one is the first to be run.
local undo = {}

local function int(x) return string.format('%.0f', x) end
local function split(text) -- five fields
  return string.match(text, '^(.-)\31(.-)\31(.-)\31(.-)\31(.*)$')
end

local version = call('GET', K[VERSION]) or '0'
if version - A[1] < 0 then return {'rolled back', tonumber(version)} end

local count, sessions, enforced = A[2] + 0, A[31] + 0, string.byte(A[20]) == 49
local cells = 32 + 2 * sessions
local at = cells + 1 + A[cells]
local rows, line = {}, {} -- line[i]: flags, scope, 6 limits, expiry, who, raised, thresholds
for i = 1, count do
  local found = call('HMGET', K[TRACES + i], 'n', 't', 'x')
  local row = {dirty = false, is_new = not found[1], stop = '', raised = '', alerted = '',
    struct.unpack(NUMBERS, found[1] or string.rep('\0', 60))}
  row[STARTED] = nil -- the position that unpack returns last
  if found[2] then
    row[STARTED], row[LAST], row[ACTIVE], row[ENDED] = struct.unpack(TIMES, found[2])
  end
  if found[3] then
    row.stop, row.raised, row.alerted = string.match(found[3], '^(.-)\30(.-)\30(.*)$')
  end
  if row.raised ~= A[at + 10] then return {'raised', i, row.raised} end
  rows[i], line[i] = row, at
  at = at + 12 + 3 * A[at + 11]
end
local function is_session(i) return i <= sessions end

-- Opens what is new, and remembers what the thresholds watch.
local function open(now, first)
  local before = {}
  for i = 1, count do
    local row = rows[i]
    if is_session(i) and not row[STARTED] then
      row[STARTED] = now - A[first + i]
      row[LAST], row[ACTIVE], row[ENDED], row.opens = row[STARTED], 0, -1, true
    end
    if A[line[i] + 11] ~= '0' then before[i] = {unpack(row, 1, ACTIVE)} end
  end
  return before
end

local function touch(i, now, first)
  local row = rows[i]
  row.dirty = true
  if not is_session(i) then return end
  local gap = now - row[LAST]
  if math.floor(row[LAST] / DAY_MS) ~= math.floor(now / DAY_MS) then row.lives = true end
  if gap > 0 then
    row[ACTIVE] = row[ACTIVE] + math.min(A[first + i] + 0, gap)
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

local function crossings(before)
  local found = {}
  for i = 1, count do
    local was, row, p = before[i], rows[i], line[i] + 12
    for j = 1, was and A[line[i] + 11] or 0 do
      local slot, value, label = A[p] + 0, A[p + 1] + 0, A[p + 2]
      -- Without a raise, one below what was posted has been lowered, and is told now.
      local is_crossed = value <= row[slot] and ((was[slot] or 0) < value or row.raised == '')
      if is_crossed and note_told(row, label) then
        found[#found + 1] = {i, j, int(row[slot])}
      end
      p = p + 3
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
local function finish(id, content, accounts)
  -- Taken back, it was released at most: a hold that is open counts before that.
  undo[#undo + 1] = {'HSET', K[DONE], id, 'r' .. content .. accounts}
  call('HSET', K[DONE], id, 's' .. content .. accounts)
  -- Each anew: a clock that is ahead may have begun the period a day before others.
  call('EXPIRE', K[DONE], DONE_TTL_S)
end

local function loops() return loops_of(K[TRACES], undo, A[21], A[22], A[23], A[24], A[25]) end

