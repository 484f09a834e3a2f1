-- settle.lua: books a call that has ended. A part of call.lua; `_settle` of
-- core/ledger.py.

-- Adds numbers to a cell; `text` is how they are written, which is all a new one needs.
local function add(i, format, text, numbers)
  local key, name = K[TRACES + count + i], A[cells + i]
  local known = call('HGET', key, name)
  undo[#undo + 1] = known and {'HSET', key, name, known} or {'HDEL', key, name}
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

local has_event = false -- of a call that is booked now

local function settle()
  local id, now, cost, tokens, first = A[3], A[4] + 0, A[6] + 0, A[7] + 0, 31
  local hold, slot, known = call('HGET', K[HOLDS], id), 2, nil
  if not hold then hold, slot = call('HGET', K[LOST], id), 3 end
  if not hold then known = finished(id) end
  if known and string.sub(known, 1, 1) == 's' then return {0} end
  local held_cost, held_tokens, content, accounts, names = 0, 0, A[8], A[28], ''
  if hold then
    local _, c, t, due, rest = split(hold)
    if slot == 2 then undo[1] = {'ZADD', K[DUE], due, id} end
    held_cost, held_tokens = c + 0, t + 0
    content, accounts = string.sub(rest, 1, 6), string.sub(rest, 7, 12)
    names = '\n' .. string.sub(rest, 13) .. '\n'
  elseif known then content, accounts = string.sub(known, 2, 7), string.sub(known, 8) end
  if accounts ~= A[28] then return {-1} end

  -- First what is allowed even when memory is used up: what is paid must be booked.
  call('ZREM', K[DUE], id)
  finish(id, content, accounts)
  if hold then
    local holds = K[slot == 2 and HOLDS or LOST]
    undo[#undo + 1] = {'HSET', holds, id, hold}
    call('HDEL', holds, id)
  end

  local before, new_stop = open(now, first), ''
  for i = 1, count do
    local row, p = rows[i], line[i]
    -- A new row has expired since, with what it held. One that a hold does not name was
    -- forgotten with its customer, and is of a session that was taken up again.
    touch(i, now, first)
    local is_held = string.find(names, '\n' .. K[TRACES + i] .. '\n', 1, true)
    if is_held and not row.is_new then
      row[slot], row[slot + 3] = row[slot] - held_cost, row[slot + 3] - held_tokens
    else
      local calls = A[5] == 'model' and MODELS or TOOLS
      row[STEPS], row[calls] = row[STEPS] + 1, row[calls] + 1
    end
    row[1], row[4] = row[1] + cost, row[4] + tokens
    if is_session(i) and enforced and row.stop == '' then
      local money, used = row[1] + row[3], row[4] + row[6]
      if A[p + 2] ~= '' and money - A[p + 2] > 0 then
        stop_for_budget(i, now, COST, money, A[p + 2])
      elseif A[p + 3] ~= '' and used - A[p + 3] > 0 then
        stop_for_budget(i, now, TOKENS, used, A[p + 3])
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
    stop_for_loop(now, id, text)
    if new_stop == '' then new_stop = rows[1].stop end
    told = false
  end
  if told then text = '' end
  if #crossed > 0 then telling().crossings(crossed, now) end

  has_event = true
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

