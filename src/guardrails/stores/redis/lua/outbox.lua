-- outbox.lua: gives out alerts that are to be sent, and notes what came of them.
--
-- `claim`, `note`, `retry`, `read` and `add` of core/alerting/outbox.py. What a place knows
-- of an alert is in outbox/to/ it: state, message, attempts, instant, status, text, due.
-- KEYS 1 outbox; all others are made of its prefix, see tell.lua
-- ARGV 1 claim | note | retry | read | tell, 2 now, 3 place, then by order:
--      claim: 4 owner, 5 until, 6 alerts that become a message each, 7 alerts at most,
--             8 instant at which alerts are forgotten, 9 how many at most,
--             10 whether a process ends
--      note:  4 owner, 5 state, 6 due, 7 cooldown, 8 status, 9 text, 10 lost that were
--             told, 11 label, 12 until when it is calm, 13 rest, then ids
--      retry: 4 id ('' = all)
--      read:  4 alerts at most
--      tell:  from 4 on id, instant and text of each
-- reply: claim {next ('' = nothing waits), message, failures, lost, id, text, ...};
--        note and retry a number; tell the ids that are new; read {places, {id, text, {place, row, ...}}, ...}
local call, A = redis.call, ARGV
local order, now, place = A[1], A[2] + 0, A[3]
local outbox = outbox_of(string.sub(KEYS[1], 1, -7))
local places_of, place_of, keep_place = outbox.places_of, outbox.place_of, outbox.keep_place
local CLOCKS_MS, REST_MS_MAX, PAUSE_MS_MAX, HELD_MS_MAX = 60000, 10000, 3600000, 86400000
local PLACE_OPEN = {waiting = true, sending = true}
local all, ages = KEYS[1], KEYS[1] .. '/ages'
local due, to = KEYS[1] .. '/due/' .. place, KEYS[1] .. '/to/' .. place
local calm = KEYS[1] .. '/calm/' .. place .. '/'

local function int(x) return string.format('%.0f', x) end
local function row_of(key, id)
  local text = call('HGET', key, id)
  if not text then return {'waiting', '', '0', '', '', '', ''} end
  return {string.match(text, '^(.-)\31(.-)\31(.-)\31(.-)\31(.-)\31(.-)\31(.*)$')}
end
local function keep_row(key, id, row)
  call('HSET', key, id, table.concat(row, '\31'))
end
local function subject_of(id)
  local text = call('HGET', all, id)
  return redis.sha1hex(string.match(text, '\30([^\30]*)\30[^\30]*$'))
end

-- Whether something has not ended, which takes as long as this at most: what is further
-- off was written by a clock that is ahead.
local function is_ahead(at, longest)
  return at - now > 0 and at - now <= longest + CLOCKS_MS
end

-- Until when alerts are forgotten. A client that is ahead would forget what is new.
local function forgotten_until()
  local at, said = A[8] + 0, redis.pcall('TIME')
  if not said.err then at = math.min(at, said[1] * 1000 + CLOCKS_MS - (now - at)) end
  return int(at)
end

local function claim()
  local old = call('ZRANGEBYSCORE', ages, '-inf', forgotten_until(), 'LIMIT', '0', A[9])
  for _, id in ipairs(old) do
    outbox.forget(id)
  end
  local claim_max, singles = A[7] + 0, A[6] + 0
  local found = call('ZRANGEBYSCORE', due, '-inf', '+inf', 'WITHSCORES', 'LIMIT', '0',
    int(claim_max + 1))
  if #found == 0 then return {''} end
  local state = place_of(place)
  local is_claimed = is_ahead(state[2], A[5] - A[2])
  if state[1] ~= '' and state[1] ~= A[4] and is_claimed then return {state[2]} end
  local free = state[3]
  if A[10] == '0' and state[7] - free > 0 then free = state[7] end
  local pause = state[4] - 0 > 0 and PAUSE_MS_MAX or REST_MS_MAX
  if is_ahead(free, pause) then return {free} end
  local ids, members, passing, next_due = {}, {}, {}, nil
  for i = 1, #found, 2 do
    local at = tonumber(found[i + 1])
    local waits = is_ahead(at, HELD_MS_MAX) and row_of(to, found[i])[7] ~= ''
    if not waits and #ids < claim_max then ids[#ids + 1] = found[i]
    elseif not next_due then next_due = at end
  end
  local message = ids[1] and row_of(to, ids[1])[2] or ''
  if message ~= '' then
    for _, id in ipairs(ids) do
      if row_of(to, id)[2] == message then members[#members + 1] = id end
    end
  else
    for _, id in ipairs(ids) do
      local til, row = call('GET', calm .. subject_of(id)), row_of(to, id)
      -- It waits once: what was held back passes when the while is over.
      if til and is_ahead(til, HELD_MS_MAX) and row[7] == '' then
        call('ZADD', due, til, id)
        row[7] = til
        keep_row(to, id, row)
        next_due = math.min(next_due or til + 0, til)
      else passing[#passing + 1] = id end
    end
    local digest = #passing > singles and redis.sha1hex(table.concat(passing, ' '))
    members = digest and passing or {passing[1]}
    for i, id in ipairs(members) do
      local row = row_of(to, id)
      row[1], row[2], row[7] = 'sending', digest or id, int(i - 1)
      keep_row(to, id, row)
      call('ZADD', due, int(i - 1), id)
    end
    message = digest or passing[1]
  end
  if #members == 0 then
    call('EXPIRE', to, OUTBOX_TTL_S)
    return {int(next_due)}
  end
  state[1], state[2] = A[4], A[5]
  keep_place(place, state)
  call('EXPIRE', to, OUTBOX_TTL_S)
  local reply = {'', message, state[4], state[5]}
  for _, id in ipairs(members) do
    reply[#reply + 1] = id
    reply[#reply + 1] = call('HGET', all, id)
  end
  return reply
end

local function note()
  local state, count, delivered = place_of(place), 0, A[5] == 'delivered'
  for i = 14, #A do
    local id, row = A[i], row_of(to, A[i])
    if PLACE_OPEN[row[1]] and call('HGET', all, id) then
      count = count + 1
      row[1], row[3], row[4], row[5], row[6] = A[5], int(row[3] + 1), A[2], A[8], A[9]
      -- First, since it may be refused: what is due is sent, whatever its row says.
      if A[5] ~= 'sending' then call('ZREM', due, id) end
      keep_row(to, id, row)
      if delivered and A[7] ~= '0' then
        call('SET', calm .. subject_of(id), A[12], 'PX', A[7])
      end
    end
  end
  if state[1] == A[4] then state[1], state[2] = '', '0' end
  local waits = is_ahead(state[3], PAUSE_MS_MAX)
  if not waits or A[6] - state[3] > 0 then state[3] = A[6] end
  state[4] = delivered and '0' or int(state[4] + 1)
  state[5] = math.max(0, state[5] - A[10])
  if A[5] == 'dead' then state[5] = state[5] + count end
  state[5], state[6], state[7] = int(state[5]), A[11], A[13]
  call('EXPIRE', to, OUTBOX_TTL_S)
  keep_place(place, state)
  return count
end

local function retry()
  local count, ids = 0, {A[4]}
  if A[4] == '' then ids = call('ZRANGEBYSCORE', ages, '-inf', '+inf') end
  for _, id in ipairs(ids) do
    local text = call('HGET', all, id)
    for name in places_of(text or '') do
      local key = all .. '/to/' .. name
      local row = row_of(key, id)
      if row[1] ~= 'delivered' then
        if row[1] == 'dead' or row[2] == '' then
          row[1], row[2], row[7] = 'waiting', '', A[2]
          keep_row(key, id, row)
          call('ZADD', all .. '/due/' .. name, A[2], id)
          call('EXPIRE', all .. '/due/' .. name, OUTBOX_TTL_S)
          call('EXPIRE', key, OUTBOX_TTL_S)
        end
        count = count + 1
        local state = place_of(name)
        if state[3] - now > 0 then
          state[3] = A[2]
          keep_place(name, state)
        end
      end
    end
  end
  return count
end

local function read()
  local reply = {call('HGETALL', all .. '/places')}
  for _, id in ipairs(call('ZREVRANGE', ages, '0', int(A[4] - 1))) do
    local text, rows = call('HGET', all, id), {}
    for name in places_of(text) do
      rows[#rows + 1] = name
      rows[#rows + 1] = table.concat(row_of(all .. '/to/' .. name, id), '\31')
    end
    reply[#reply + 1] = {id, text, rows}
  end
  return reply
end

local function tell_all()
  local new = {}
  for i = 4, #A, 3 do
    if outbox.tell(A[i], A[i + 1], A[i + 2]) then new[#new + 1] = A[i] end
  end
  return new
end

local orders = {claim = claim, note = note, retry = retry, read = read, tell = tell_all}
return orders[order]()
