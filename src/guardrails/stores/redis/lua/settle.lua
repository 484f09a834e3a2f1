-- settle.lua: books a call that has ended. A part of call.lua; `_settle` of
-- core/ledger.py.

-- Returns what is in cell i, as long as `text`: what an earlier version wrote is shorter,
-- because it did not know the last numbers.
local function known_in(i, text)
  local key, name = K[TRACES + count + i], A[CELLS + i]
  local known = call('HGET', key, name)
  undo[#undo + 1] = known and {'HSET', key, name, known} or {'HDEL', key, name}
  if known and #known < #text then known = known .. string.rep('\0', #text - #known) end
  return known
end
local function keep_in(i, text, is_new)
  local key = K[TRACES + count + i]
  call('HSET', key, A[CELLS + i], text)
  if is_new and call('HLEN', key) == 1 then call('EXPIRE', key, ROLLUP_TTL_S) end
end

-- Adds what a call comes to to each of its cells; `text` is all that a new one needs. In
-- tables the numbers would take the server twice as long.
local function add_sums(cells, text)
  local a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16 =
    struct.unpack(SUMS, text)
  for i = 1, cells do
    local known, sums = known_in(i, text), text
    if known then
      local b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16 =
        struct.unpack(SUMS, known)
      sums = struct.pack(SUMS, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7,
        a8 + b8, a9 + b9, a10 + b10, a11 + b11, a12 + b12, a13 + b13, a14 + b14, a15 + b15,
        a16 + b16)
    end
    keep_in(i, sums, not known)
  end
end

-- Adds the tokens and the cost of each layer: all layers are one cell.
local function add_layers(i, text)
  local format = '<' .. string.rep('i8', 22)
  local sums, known = {struct.unpack(format, text)}, known_in(i, text)
  local before = known and {struct.unpack(format, known)}
  for j = 1, known and 22 or 0 do sums[j] = sums[j] + before[j] end
  keep_in(i, struct.pack(format, unpack(sums, 1, 22)), not known)
end

local has_event = false -- of a call that is booked now

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

  has_event = true
  local cells, layers = #K - TRACES - count, string.sub(A[ADDED], SUMS_BYTES + 1)
  if layers ~= '' then
    add_layers(cells, layers)
    cells = cells - 1
  end
  add_sums(cells, string.sub(A[ADDED], 1, SUMS_BYTES))

  local late = not hold or slot == 3
  if not late and #crossed == 0 and new_stop == '' and text == '' then return 1 end
  return {1, late and 1 or 0, crossed, new_stop, text}
end

