-- reserve.lua: admits a call that begins, or refuses it. A part of call.lua; `_reserve`
-- of core/ledger.py.

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
    -- One that was given back answers for no call any more.
    content = known and string.sub(known, 1, 1) == 's' and string.sub(known, 2, 7) or known
  end
  if content then return content == A[17] and 1 or {'conflict'} end

  local before, answer = open(now, first), nil
  local order, which = stopped(now)
  local why, where, final
  if order then answer = {'deny', which, order, 3, int(rows[1][STEPS])}
  else why, where, final = refusal(now, cost, tokens, calls, first) end
  if why then
    local row, steps = rows[where], int(rows[1][STEPS])
    if why == 'stop' then answer = {'deny', where, row.stop, 0, steps}
    elseif #why == 5 then
      local text = table.concat(why, '\31')
      answer = {'deny', where, text, 2, steps}
      if enforced then
        has_refused = true
        if loops().count_refusal(A[19]) > A[27] + 0 then -- it was told, and goes on all the same
          stop_for_loop(now, id, text)
          touch(1, now, first)
          answer = {'deny', where, row.stop, 1, steps}
        end
      end
    else
      answer = {final and 'deny' or 'wait', where, '', 0, steps,
        why[1], int(why[2]), why[3], int(why[4])}
      if final and enforced and is_session(where) then
        stop_for_budget(where, now, why[1], why[2], why[3], why[4])
        touch(where, now, first)
        answer = {'deny', where, row.stop, 1, steps}
      elseif final and enforced then telling().limit(where, now, why) end
    end
  end

  if answer then
    if enforced then return answer end
    answer[1] = 'allow'
  end

  undo[#undo + 1] = {'ZREM', K[DUE], id}
  call('ZADD', K[DUE], A[18], id)
  undo[#undo + 1] = {'HDEL', K[HOLDS], id}
  call('HSET', K[HOLDS], id, table.concat({A[14], A[15], A[16], A[18],
    A[17] .. A[28] .. A[29]}, '\31'))
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

