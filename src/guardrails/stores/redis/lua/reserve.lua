-- reserve.lua: admits a call that begins, or refuses it. A part of call.lua; `_reserve`
-- of core/ledger.py.

-- What stands in the way on one line: 'stop' or {measure, used, allowed, needed}, and
-- whether waiting for open holds is in vain.
local function in_the_way(i, now, cost, tokens, calls)
  local row = rows[i]
  local binds, cost_max, tokens_max, steps_max, models_max, tools_max, active_max = limits_of(i)
  if binds == 0 then return nil, false end
  if row.stop ~= '' then return 'stop', true end
  if row[STEPS] >= steps_max then return {STEPS, row[STEPS], steps_max, 1}, true end
  local calls_max = calls == MODELS and models_max or tools_max
  if row[calls] >= calls_max then return {calls, row[calls], calls_max, 1}, true end
  if i <= sessions then
    local elapsed = row[ACTIVE] + math.max(0, math.min(active_of(i, RESERVED), now - row[LAST]))
    if elapsed >= active_max then return {ACTIVE, elapsed, active_max, 0}, true end
  end
  local money, words = row[1] + row[2] + row[3], row[4] + row[5] + row[6]
  local waiting
  if money + cost > cost_max then
    waiting = {COST, money, cost_max, cost}
    if money - row[2] + cost > cost_max then return waiting, true end
  end
  if words + tokens > tokens_max then
    local final = words - row[5] + tokens > tokens_max
    if final or not waiting then return {TOKENS, words, tokens_max, tokens}, final end
  end
  return waiting, false
end

local function refusal(now, cost, tokens, calls)
  local waiting, where
  for i = 1, count do
    local found, final = in_the_way(i, now, cost, tokens, calls)
    if final then return found, i, true end
    if not waiting then waiting, where = found, i end
  end
  if A[NEXT_TRACE] ~= '' and A[ACTION] == 'block' and not rows[1].opens then
    local finding = loops().continued(A[NEXT_TRACE])
    if finding then return finding, 1, true end
  end
  return waiting, where, false
end

-- The first order of a person in force that the call falls under. A session that was
-- stopped for good has that in its account, and here only for the list.
local function stopped(now)
  for i, text in ipairs(call('HMGET', K[STOPS], unpack(A, STOP_FIELDS))) do
    local til = text and string.match(text, '^(%d*)\31')
    if til == '' and string.sub(A[STOP_FIELDS - 1 + i], 1, 8) ~= 'session/' then return text, i end
    if til and til ~= '' and now - til < 0 then return text, i end
  end
end

local has_refused = false -- a call for a loop, which is counted

local function reserve()
  local now, cost, tokens, calls = struct.unpack(HALF, A[CALL], RESERVED)
  local id, content = A[RESERVED_ID], nil
  local hold = call('HGET', K[HOLDS], id) or call('HGET', K[LOST], id)
  if hold then
    local _, _, _, at = split(hold)
    content = string.sub(hold, at, at + 5)
  else
    local known = finished(id)
    -- One that was given back answers for no call any more.
    content = known and string.sub(known, 1, 1) == 's' and string.sub(known, 2, 7) or known
  end
  if content then return content == string.sub(A[HOLD], -6) and 1 or {'conflict'} end

  local before, answer = open(now, RESERVED), nil
  local order, which = stopped(now)
  local why, where, final
  if order then answer = {'deny', which, order, 3, int(rows[1][STEPS])}
  else why, where, final = refusal(now, cost, tokens, calls) end
  if why then
    local row, steps = rows[where], int(rows[1][STEPS])
    if why == 'stop' then answer = {'deny', where, row.stop, 0, steps}
    elseif #why == 5 then
      local text = table.concat(why, '\31')
      answer = {'deny', where, text, 2, steps}
      if enforced then
        has_refused = true
        if loops().count_refusal(A[NEXT_TRACE]) then -- it was told, and goes on all the same
          stop_for_loop(now, id, text)
          touch(1, now, RESERVED)
          answer = {'deny', where, row.stop, 1, steps}
        end
      end
    else
      answer = {final and 'deny' or 'wait', where, '', 0, steps,
        why[1], int(why[2]), int(why[3]), int(why[4])}
      if final and enforced and where <= sessions then
        stop_for_budget(where, now, why[1], why[2], why[3], why[4])
        touch(where, now, RESERVED)
        answer = {'deny', where, row.stop, 1, steps}
      elseif final and enforced then telling().limit(where, now, why) end
    end
  end

  if answer then
    if enforced then return answer end
    answer[1] = 'allow'
  end

  undo[#undo + 1] = {'ZREM', K[DUE], id}
  call('ZADD', K[DUE], A[EXPIRY], id)
  undo[#undo + 1] = {'HDEL', K[HOLDS], id}
  call('HSET', K[HOLDS], id, A[HOLD] .. A[CHARGED])
  for i = 1, count do
    local row = rows[i]
    touch(i, now, RESERVED)
    row[2], row[5] = row[2] + cost, row[5] + tokens
    row[STEPS], row[calls] = row[STEPS] + 1, row[calls] + 1
  end
  local crossed = crossings(before)
  if #crossed > 0 then telling().crossings(crossed, now) end

  if not answer and #crossed == 0 then return 1 end
  return {answer or {'allow'}, crossed}
end

