-- settle.lua: books a call that has ended. A part of call.lua; `_settle` of
-- core/ledger.py.

local notes = 0 -- how many there are with that of a call that is booked now

local function settle()
  local now, cost, tokens, calls = struct.unpack(HALF, A[CALL], SETTLED)
  local id = A[SETTLED_ID]
  local hold, slot, known = call('HGET', K[HOLDS], id), 2, nil
  if not hold then hold, slot = call('HGET', K[LOST], id), 3 end
  if not hold then known = finished(id) end
  if known and string.sub(known, 1, 1) == 's' then return {0} end
  local held_cost, held_tokens, content, names = 0, 0, A[SETTLED_CONTENT], A[CHARGED]
  if hold then
    local c, t, due, at = split(hold)
    if slot == 2 then undo[1] = {'ZADD', K[DUE], due, id} end
    held_cost, held_tokens = c + 0, t + 0
    content, names = string.sub(hold, at, at + 5), string.sub(hold, at + 6)
  elseif known then content, names = string.sub(known, 2, 7), string.sub(known, 8) end
  local digest = string.sub(names, 1, 6)
  if digest ~= string.sub(A[CHARGED], 1, 6) then return {-1} end
  -- A row that a hold does not name was forgotten with its customer, and is of a session
  -- that was taken up again.
  local names_some = names ~= A[CHARGED] and '\n' .. string.sub(names, 7) .. '\n'

  -- First what is allowed even when memory is used up: what is paid must be booked.
  call('ZREM', K[DUE], id)
  finish(id, content, digest)
  if hold then
    local holds = K[slot == 2 and HOLDS or LOST]
    undo[#undo + 1] = {'HSET', holds, id, hold}
    call('HDEL', holds, id)
  end

  local before, new_stop = open(now, SETTLED), ''
  for i = 1, count do
    local row = rows[i]
    touch(i, now, SETTLED)
    local is_held = hold and (not names_some
      or string.find(names_some, '\n' .. K[TRACES + i] .. '\n', 1, true))
    if is_held and not row.is_new then -- a new one has expired since, with what it held
      row[slot], row[slot + 3] = row[slot] - held_cost, row[slot + 3] - held_tokens
    else row[STEPS], row[calls] = row[STEPS] + 1, row[calls] + 1 end
    row[1], row[4] = row[1] + cost, row[4] + tokens
    if i <= sessions and enforced and row.stop == '' then
      local money, used = row[1] + row[3], row[4] + row[6]
      local _, cost_max, tokens_max = limits_of(i)
      if money > cost_max then stop_for_budget(i, now, COST, money, cost_max)
      elseif used > tokens_max then stop_for_budget(i, now, TOKENS, used, tokens_max) end
      if new_stop == '' then new_stop = row.stop end
    end
  end

  local crossed = crossings(before)
  local finding, told
  if A[TRACE] ~= '' and A[ACTION] ~= '' then finding, told = loops().learn(A[TRACE]) end
  local text = finding and table.concat(finding, '\31') or ''
  local is_stop = finding and A[ACTION] == 'stop' and enforced
  if finding and not told then telling().loop(now, id, finding, text, is_stop) end
  if is_stop and rows[1].stop == '' then
    stop_for_loop(now, id, text)
    if new_stop == '' then new_stop = rows[1].stop end
    told = false
  end
  if told then text = '' end
  if #crossed > 0 then telling().crossings(crossed, now) end

  call('LTRIM', K[NOTES], '0', '-1') -- does nothing, but shows that the note can be taken back
  notes = call('RPUSH', K[NOTES], A[NOTE])
  undo[#undo + 1] = {'LTRIM', K[NOTES], '0', '-2'}
  local why = notes > NOTES_MAX and add_notes(project)
  if why then error(why, 0) end

  local late = not hold or slot == 3
  if not late and #crossed == 0 and new_stop == '' and text == '' then return 1 end
  return {1, late and 1 or 0, crossed, new_stop, text}
end

