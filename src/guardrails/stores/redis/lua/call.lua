-- call.lua: books the call that has ended and reserves the one that begins.
--
-- Either half may be left out. This is `_settle` and `_reserve` of
-- core/ledger.py, which is the specification: the tests compare the two reply
-- by reply. Nothing is written before the last check of a half, and whatever is
-- written is written together, because a script that fails is not rolled back.
--
-- Only strings go into redis.call: how Lua prints a number there depends on the
-- server's version. Sums stay below 2^53, where doubles are exact.
--
-- What few calls need is in loops.lua and tell.lua, which stand before it.
--
-- KEYS 1 version, 2 holds, 3 due, 4 lost, 5-8 finished, 9 events, 10 stops,
--      11 traces of the session, then one account per line, then one rollup per cell
-- ARGV 1-2   known version, lines
--      3-11  settle: id ('' = none), now, kind, cost, tokens, content, event, trace, sums
--      12-19 reserve: id ('' = none), now, kind, cost, tokens, content, expiry, and the
--            trace of it if it is refused for a loop ('' = takes no part)
--      20-27 enforced and what is told (see `telling`), loop: repeats, of cycles, of
--            errors, of polling, within, action ('' = no rule), refusals
--      28-31 digest of the accounts, the accounts, events kept, session lines
--      32-   active ms per session line: settle, then reserve
--      then  cells, and the name of each
--      then  per line 12 + 3 per threshold, see `line` below
--      then  the fields of the stops that the call falls under
-- reply {'ok', version, settled, reserved, rows}; 1 for a half without anything to
--       tell; rows as they are now, if all of them changed.
--       {'raised', line, limits}: the client did not know of raised limits.
--       {'rolled back', version}: the store has forgotten what the client saw.
local call, A, K = redis.call, ARGV, KEYS
local VERSION, HOLDS, DUE, LOST, DONE, EVENTS, STOPS, TRACES = 1, 2, 3, 4, 5, 9, 10, 11
local SESSION_TTL_S, DONE_TTL_S, ROLLUP_TTL_S, GRACE_S = '2592000', '144000', '34560000', 3456000
local CLOCK_STEP_MS, DAY_MS = 60000, 86400000

-- A row: money posted, held, unconfirmed; tokens posted, held, unconfirmed;
-- steps, model calls, tool calls. A session's: started, last active, active and
-- ended (-1 = not) in ms.
local NUMBERS, TIMES, SUMS = '<i8i8i8i8i8i8i4i4i4', '<i8i8i8i8', '<i8i8i4i4i8i8i4i4i4i8i8i8i8i8i8i8'
local SUMS_BYTES = 108
local COST, TOKENS, STEPS, MODELS, TOOLS, ACTIVE = 1, 4, 7, 8, 9, 12
local STARTED, LAST, ENDED = 10, 11, 13

local function int(x) return string.format('%.0f', x) end
local function split(text) -- five fields
  return string.match(text, '^(.-)\31(.-)\31(.-)\31(.-)\31(.*)$')
end

local version = call('GET', K[VERSION]) or '0'
if version - A[1] < 0 then return {'rolled back', tonumber(version)} end

-- ---------------------------------------------------------------- the rows
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
      if (was[slot] or 0) < value and value <= row[slot] and note_told(row, label) then
        found[#found + 1] = {i, j, int(row[slot])}
      end
      p = p + 3
    end
  end
  return found
end

local function stop_of(reason, now, measure, scope, used, allowed, needed, finding)
  return table.concat({reason, int(now), measure, scope, int(used), int(allowed),
    needed and int(needed) or '', finding or '\31\31\31\31', '', ''}, '\31')
end

-- ---------------------------------------------------------------- telling
-- What people are told. One function makes the others, as in loops.lua.
local function telling()
  local LIMIT_AT = {[COST] = 2, [TOKENS] = 3, [STEPS] = 4, [MODELS] = 5, [TOOLS] = 6, [ACTIVE] = 7}
  local MEASURE = {[COST] = 'max_cost_usd', [TOKENS] = 'max_tokens', [STEPS] = 'max_steps',
    [MODELS] = 'max_model_calls', [TOOLS] = 'max_tool_calls', [ACTIVE] = 'max_wall_time_s'}
  -- Behind whether limits are enforced: kinds, whose call it is, and places.
  local kinds, who_calls, to_places = string.match(A[20], '^.\30(.-)\30(.-)\30(.*)$')
  local function wants(kind) return kinds and string.find(kinds, kind, 1, true) end

  -- Tells about line i. `id` parts what has the same subject, if anything does.
  local function about(kind, i, now, what, id, fields)
    local p, key = line[i], K[TRACES + i]
    local project, rest = string.match(key, '^gr:{(.-)}:(.*)$')
    local subject = kind .. ' ' .. project .. '/' .. rest .. ' ' .. what
    local owner = A[p + 9] == '' and who_calls or A[p + 9]
    local session = is_session(i)
    local text = table.concat({kind, int(now), owner, A[p + 1], session and '1' or '0',
      fields.measure or '', fields.used or '', fields.limit or '', fields.needed or '',
      fields.threshold or '', fields.reason or '', session and int(rows[i][STEPS]) or '',
      fields.finding or '', '', '', '', subject, to_places}, '\30')
    outbox_of(string.sub(K[VERSION], 1, -8)).tell(
      redis.sha1hex(subject .. id), int(now), text)
  end

  local function crossings(crossed, now)
    if not wants('soft') then return end
    for _, found in ipairs(crossed) do
      local p = line[found[1]] + 9 + 3 * found[2]
      local slot, label = A[p] + 0, A[p + 2]
      local limit = A[line[found[1]] + LIMIT_AT[slot]]
      about('soft', found[1], now, label .. ' ' .. limit, '', {measure = MEASURE[slot],
        used = found[3], limit = limit, threshold = label})
    end
  end

  local function stop(i, now, id, measure, used, allowed, needed, finding)
    if not wants('stop') then return end
    if measure then
      about('stop', i, now, MEASURE[measure] .. ' ' .. int(allowed), '', {
        measure = MEASURE[measure], used = int(used), limit = int(allowed),
        needed = needed and int(needed), reason = 'budget_exceeded'})
    else
      about('stop', i, now, '', ' ' .. id, {reason = 'loop_detected', finding = finding})
    end
  end

  -- Tells once that a shared account refuses; its row remembers that. A session has one
  -- account beside its own that is no budget.
  local function limit(i, now, why)
    local row, scope, name = rows[i], A[line[i] + 1], MEASURE[why[1]]
    if scope == A[line[1] + 1] or not wants('limit') then return end
    if not note_told(row, 'reached ' .. name) then return end
    row.dirty = true
    about('limit', i, now, name .. ' ' .. int(why[3]), '', {measure = name,
      used = int(why[2]), limit = int(why[3]), needed = int(why[4])})
  end

  -- Tells of a loop, unless that it stops the session is told in its place.
  local function loop(now, id, finding, text, is_stop)
    if not wants('loop') or is_stop and wants('stop') then return end
    about('loop', 1, now, string.match(finding[2], '([^\29]*)$'), ' ' .. id, {finding = text})
  end

  return {crossings = crossings, stop = stop, limit = limit, loop = loop}
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
local function finish(id, text)
  call('HSET', K[DONE], id, text)
  if call('HLEN', K[DONE]) == 1 then call('EXPIRE', K[DONE], DONE_TTL_S) end
end

local function loops() return loops_of(K[TRACES], A[21], A[22], A[23], A[24], A[25]) end

-- --------------------------------------------------------------- settle
-- Adds numbers to a cell; `text` is how they are written, which is all a new one needs.
local function add(i, format, text, numbers)
  local key, name = K[TRACES + count + i], A[cells + i]
  local known = call('HGET', key, name)
  if known then
    -- What an earlier version wrote is shorter: it did not know the last numbers.
    if #known < #text then known = known .. string.rep('\0', #text - #known) end
    local sums = {struct.unpack(format, known)}
    local size = #numbers - 1 -- behind them is the position that unpack returns last
    for j = 1, size do sums[j] = sums[j] + numbers[j] end
    call('HSET', key, name, struct.pack(format, unpack(sums, 1, size)))
  else
    call('HSET', key, name, text)
    if call('HLEN', key) == 1 then call('EXPIRE', key, ROLLUP_TTL_S) end
  end
end

local function settle()
  local id, now, cost, tokens, first = A[3], A[4] + 0, A[6] + 0, A[7] + 0, 31
  local hold, slot, known = call('HGET', K[HOLDS], id), 2, nil
  if not hold then hold, slot = call('HGET', K[LOST], id), 3 end
  if not hold then known = finished(id) end
  if known and string.sub(known, 1, 1) == 's' then return {0} end
  local held_cost, held_tokens, content, accounts = 0, 0, A[8], A[28]
  if hold then
    local _, c, t, _, rest = split(hold)
    held_cost, held_tokens = c + 0, t + 0
    content, accounts = string.sub(rest, 1, 6), string.sub(rest, 7, 12)
  elseif known then content, accounts = string.sub(known, 2, 7), string.sub(known, 8) end
  if accounts ~= A[28] then return {-1} end
  -- First what is allowed even when memory is used up: what is paid must be booked.
  if slot == 2 and hold then call('HDEL', K[HOLDS], id); call('ZREM', K[DUE], id)
  else call('HDEL', K[LOST], id) end
  finish(id, 's' .. content .. accounts)
  local before, new_stop = open(now, first), ''
  for i = 1, count do
    local row, p = rows[i], line[i]
    touch(i, now, first)
    if hold and not row.is_new then -- a new row has expired since, with what it held
      row[slot], row[slot + 3] = row[slot] - held_cost, row[slot + 3] - held_tokens
    else
      local calls = A[5] == 'model' and MODELS or TOOLS
      row[STEPS], row[calls] = row[STEPS] + 1, row[calls] + 1
    end
    row[1], row[4] = row[1] + cost, row[4] + tokens
    if is_session(i) and enforced and row.stop == '' then
      local money, used = row[1] + row[3], row[4] + row[6]
      if A[p + 2] ~= '' and money - A[p + 2] > 0 then
        row.stop = stop_of('budget_exceeded', now, COST, A[p + 1], money, A[p + 2])
        telling().stop(i, now, id, COST, money, A[p + 2])
      elseif A[p + 3] ~= '' and used - A[p + 3] > 0 then
        row.stop = stop_of('budget_exceeded', now, TOKENS, A[p + 1], used, A[p + 3])
        telling().stop(i, now, id, TOKENS, used, A[p + 3])
      end
      if new_stop == '' then new_stop = row.stop end
    end
  end
  local crossed = crossings(before)
  local finding, told
  if A[10] ~= '' and A[26] ~= '' then finding, told = loops().learn(A[10]) end
  local text = finding and table.concat(finding, '\31') or ''
  local is_stop = finding and A[26] == 'stop' and enforced
  if finding and not told then telling().loop(now, id, finding, text, is_stop) end
  if is_stop and rows[1].stop == '' then
    rows[1].stop = stop_of('loop_detected', now, '', A[line[1] + 1], 0, 0, nil, text)
    telling().stop(1, now, id, nil, 0, 0, nil, text)
    if new_stop == '' then new_stop = rows[1].stop end
    told = false
  end
  if told then text = '' end
  if #crossed > 0 then telling().crossings(crossed, now) end
  call('XADD', K[EVENTS], 'MAXLEN', '~', A[30], '*', 'e', A[9])
  local packed, layers = string.sub(A[11], 1, SUMS_BYTES), string.sub(A[11], SUMS_BYTES + 1)
  local sums = {struct.unpack(SUMS, packed)}
  local last = A[cells] - (layers == '' and 0 or 1)
  for i = 1, last do add(i, SUMS, packed, sums) end
  if layers ~= '' then -- tokens and cost of each
    local format = '<' .. string.rep('i8', 22)
    add(last + 1, format, layers, {struct.unpack(format, layers)})
  end
  local late = not hold or slot == 3
  if not late and #crossed == 0 and new_stop == '' and text == '' then return 1 end
  return {1, late and 1 or 0, crossed, new_stop, text}
end

-- -------------------------------------------------------------- reserve
-- What stands in the way on one line: {measure, used, allowed, needed}, and
-- whether waiting for open holds is in vain.
local function in_the_way(i, now, cost, tokens, calls, active)
  local row, p = rows[i], line[i]
  if A[p + 4] ~= '' and row[STEPS] - A[p + 4] >= 0 then
    return {STEPS, row[STEPS], A[p + 4], 1}, true
  end
  local limit = A[p + calls - 3] -- model calls at 5, tool calls at 6
  if limit ~= '' and row[calls] - limit >= 0 then return {calls, row[calls], limit, 1}, true end
  if A[p + 7] ~= '' and is_session(i) then
    local elapsed = row[ACTIVE] + math.max(0, math.min(active, now - row[LAST]))
    if elapsed - A[p + 7] >= 0 then return {ACTIVE, elapsed, A[p + 7], 0}, true end
  end
  local money, words = row[1] + row[2] + row[3], row[4] + row[5] + row[6]
  local waiting
  if A[p + 2] ~= '' and money + cost - A[p + 2] > 0 then
    waiting = {COST, money, A[p + 2], cost}
    if money - row[2] + cost - A[p + 2] > 0 then return waiting, true end
  end
  if A[p + 3] ~= '' and words + tokens - A[p + 3] > 0 then
    local final = words - row[5] + tokens - A[p + 3] > 0
    if final or not waiting then return {TOKENS, words, A[p + 3], tokens}, final end
  end
  return waiting, false
end

local function refusal(now, cost, tokens, calls, first)
  local waiting, where
  for i = 1, count do
    if A[line[i]] == '1' then
      if rows[i].stop ~= '' then return 'stop', i, true end
      local active = is_session(i) and A[first + i] + 0 or 0
      local found, final = in_the_way(i, now, cost, tokens, calls, active)
      if final then return found, i, true end
      if not waiting then waiting, where = found, i end
    end
  end
  if A[19] ~= '' and A[26] == 'block' and not rows[1].opens then
    local finding = loops().continued(A[19])
    if finding then return finding, 1, true end
  end
  return waiting, where, false
end

-- The first order of a person in force that the call falls under. A session that was
-- stopped for good has that in its account, and here only for the list.
local function stopped(now)
  for i, text in ipairs(call('HMGET', K[STOPS], unpack(A, at))) do
    local til = text and string.match(text, '^(%d*)\31')
    if til == '' and string.sub(A[at + i - 1], 1, 8) ~= 'session/' then return text, i end
    if til and til ~= '' and now - til < 0 then return text, i end
  end
end

local has_refused = false -- a call for a loop, which is counted
local function reserve()
  local id, now, cost, tokens, first = A[12], A[13] + 0, A[15] + 0, A[16] + 0, 31 + sessions
  local calls = A[14] == 'model' and MODELS or TOOLS
  local hold = call('HGET', K[HOLDS], id) or call('HGET', K[LOST], id)
  local content = hold and string.sub(({split(hold)})[5], 1, 6)
  if not hold then
    local known = finished(id)
    content = known and string.sub(known, 2, 7)
  end
  if content then return content == A[17] and 1 or {'conflict'} end
  local before = open(now, first)
  local answer
  local order, which = stopped(now)
  local why, where, final
  if order then answer = {'deny', which, order, 3, int(rows[1][STEPS])}
  else why, where, final = refusal(now, cost, tokens, calls, first) end
  if why then
    local row = rows[where]
    if why == 'stop' then answer = {'deny', where, row.stop, 0, int(row[STEPS])}
    elseif #why == 5 then
      local text = table.concat(why, '\31')
      answer = {'deny', where, text, 2, int(row[STEPS])}
      if enforced then
        has_refused = true
        if loops().count_refusal(A[19]) > A[27] + 0 then -- it was told, and goes on all the same
          row.stop = stop_of('loop_detected', now, '', A[line[1] + 1], 0, 0, nil, text)
          telling().stop(1, now, id, nil, 0, 0, nil, text)
          touch(1, now, first)
          answer = {'deny', where, row.stop, 1, int(row[STEPS])}
        end
      end
    else
      answer = {final and 'deny' or 'wait', where, '', 0, int(row[STEPS]),
        why[1], int(why[2]), why[3], int(why[4])}
      if final and enforced and is_session(where) then
        row.stop = stop_of('budget_exceeded', now, why[1], A[line[where] + 1],
          why[2], why[3], why[4])
        telling().stop(where, now, id, why[1], why[2], why[3], why[4])
        touch(where, now, first)
        answer = {'deny', where, row.stop, 1, int(row[STEPS])}
      elseif final and enforced then telling().limit(where, now, why) end
    end
  end
  if answer then
    if enforced then return answer end
    answer[1] = 'allow'
  end
  call('HSET', K[HOLDS], id, table.concat({A[14], A[15], A[16], A[18],
    A[17] .. A[28] .. A[29]}, '\31'))
  call('ZADD', K[DUE], A[18], id)
  for i = 1, count do
    local row = rows[i]
    touch(i, now, first)
    row[2], row[5] = row[2] + cost, row[5] + tokens
    row[STEPS], row[calls] = row[STEPS] + 1, row[calls] + 1
  end
  local crossed = crossings(before)
  if #crossed > 0 then telling().crossings(crossed, now) end
  if not answer and #crossed == 0 then return 1 end
  return {answer or {'allow'}, crossed}
end

-- ------------------------------------------------------------------- save
local settled = A[3] ~= '' and settle() or 0
local reserved = A[12] ~= '' and reserve() or 0
local dirty, now = 0, {}
for i = 1, count do
  local row, key, p = rows[i], K[TRACES + i], line[i]
  if row.dirty then
    dirty, now[i] = dirty + 1, struct.pack(NUMBERS, unpack(row, 1, 9))
    local fields = {'n', now[i]}
    if is_session(i) then
      fields[3], fields[4] = 't', struct.pack(TIMES, unpack(row, STARTED, ENDED))
    end
    if row.stop ~= '' or row.raised ~= '' or row.alerted ~= '' then
      fields[#fields + 1] = 'x'
      fields[#fields + 1] = row.stop .. '\30' .. row.raised .. '\30' .. row.alerted
    end
    if row.is_new and A[p + 8] ~= '' then
      fields[#fields + 1], fields[#fields + 2] = 'e', A[p + 8]
    end
    if row.opens then -- in pieces: one value above 64 bytes costs a session 400 more
      for piece = 0, math.ceil(#A[p + 9] / 60) - 1 do
        fields[#fields + 1] = 'w' .. piece
        fields[#fields + 1] = string.sub(A[p + 9], piece * 60 + 1, piece * 60 + 60)
      end
    end
    call('HSET', key, unpack(fields))
    if is_session(i) then
      if row.opens or row.lives then call('EXPIRE', key, SESSION_TTL_S) end
    elseif row.is_new then -- its limit may have been raised before
      if A[p + 8] == '' then call('PERSIST', key)
      else call('EXPIREAT', key, int(A[p + 8] / 1000 + GRACE_S)) end
    end
  end
end
if dirty > 0 or has_refused then version = call('INCR', K[VERSION]) end
return {'ok', tonumber(version), settled, reserved, dirty == count and table.concat(now) or ''}
