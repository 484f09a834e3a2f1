-- tell.lua: adds to the outbox what people are to be told. It stands before the
-- scripts that tell, and is no script of its own.
--
-- `Outbox.add` of core/outbox.py, and the ids and texts of core/alerts.py and of
-- stores/alert_texts.py. The keys are those of the project's prefix, all in one slot:
-- outbox (alerts by id), outbox/ages, and per place outbox/due/ and outbox/to/ it.
local OUTBOX_MAX, OUTBOX_TTL_S = 20000, '604800'
local PLACE_OPEN = {waiting = true, sending = true}
local MEASURE = {[1] = 'max_cost_usd', [4] = 'max_tokens', [7] = 'max_steps',
  [8] = 'max_model_calls', [9] = 'max_tool_calls', [12] = 'max_wall_time_s'}

local function places_of(text)
  return string.gmatch(string.match(text, '([^\30]*)$'), '%S+')
end

-- Owner, until, due, failures, lost, label and rest of a place.
local function place_of(prefix, place)
  local text = redis.call('HGET', prefix .. 'outbox/places', place)
  if not text then return {'', 0, 0, 0, 0, '', 0} end
  return {string.match(text, '^(.-)\31(.-)\31(.-)\31(.-)\31(.-)\31(.-)\31(.*)$')}
end
local function keep_place(prefix, place, state)
  redis.call('HSET', prefix .. 'outbox/places', place, table.concat(state, '\31'))
  redis.call('EXPIRE', prefix .. 'outbox/places', OUTBOX_TTL_S)
end

local function forget(prefix, id)
  local text = redis.call('HGET', prefix .. 'outbox', id)
  redis.call('HDEL', prefix .. 'outbox', id)
  redis.call('ZREM', prefix .. 'outbox/ages', id)
  for place in places_of(text or '') do
    local was_open = redis.call('ZREM', prefix .. 'outbox/due/' .. place, id) == 1
    redis.call('HDEL', prefix .. 'outbox/to/' .. place, id)
    if was_open and redis.call('HGET', prefix .. 'outbox/places', place) then
      local state = place_of(prefix, place)
      state[5] = string.format('%.0f', state[5] + 1)
      keep_place(prefix, place, state)
    end
  end
end

local function tell(prefix, id, at, text)
  local all, ages = prefix .. 'outbox', prefix .. 'outbox/ages'
  if redis.call('HGET', all, id) then return false end
  if redis.call('HLEN', all) >= OUTBOX_MAX then
    forget(prefix, redis.call('ZRANGEBYSCORE', ages, '-inf', '+inf', 'LIMIT', '0', '1')[1])
  end
  redis.call('HSET', all, id, text)
  redis.call('ZADD', ages, at, id)
  redis.call('EXPIRE', all, OUTBOX_TTL_S)
  redis.call('EXPIRE', ages, OUTBOX_TTL_S)
  for place in places_of(text) do
    redis.call('ZADD', prefix .. 'outbox/due/' .. place, at, id)
    redis.call('EXPIRE', prefix .. 'outbox/due/' .. place, OUTBOX_TTL_S)
  end
  return true
end

-- Whose session an account is, from the pieces that it is kept in.
local function who_of(key)
  local pieces, piece = {}, redis.call('HGET', key, 'w0')
  while piece do
    pieces[#pieces + 1] = piece
    piece = redis.call('HGET', key, 'w' .. #pieces)
  end
  return table.concat(pieces)
end

-- Tells of what a person did. In the text 28 stands for who, 27 for the steps and 26
-- for raised limits, because only the account knows these.
local function tell_order(prefix, text, id, at, account, who, raised)
  local steps = ''
  if account and redis.call('HGET', account, 't') then
    local numbers = redis.call('HGET', account, 'n')
    steps = numbers and struct.unpack('<i4', string.sub(numbers, 49, 52)) or 0
    who, steps = who_of(account), string.format('%.0f', steps)
  end
  local known = {['\28'] = who, ['\27'] = steps, ['\26'] = raised or ''}
  text = string.gsub(text, '[\26-\28]', known)
  local subject = string.match(text, '\30([^\30]*)\30[^\30]*$')
  tell(prefix, redis.sha1hex(subject .. ' ' .. id), at, text)
end

