-- tell.lua: adds to the outbox what people are to be told. It stands before the
-- scripts that tell, and is no script of its own.
--
-- `Outbox.add` of core/alerting/outbox.py, and the ids and texts of alerts.py there and
-- of stores/alert_texts.py. One function makes the others, as in loops.lua.
-- The keys are those of the project's prefix, all in one slot:
-- outbox (alerts by id), outbox/ages, and per place outbox/due/ and outbox/to/ it.
local OUTBOX_MAX, OUTBOX_TTL_S = 20000, '604800'

-- What takes back what it has told is added to `undo`, for a script that does so.
local function outbox_of(prefix, undo)
  local all, ages, places = prefix .. 'outbox', prefix .. 'outbox/ages', prefix .. 'outbox/places'

  local function places_of(text)
    return string.gmatch(string.match(text, '([^\30]*)$'), '%S+')
  end

  -- Owner, until, due, failures, lost, label and rest of a place.
  local function place_of(place)
    local text = redis.call('HGET', places, place)
    if not text then return {'', 0, 0, 0, 0, '', 0} end
    return {string.match(text, '^(.-)\31(.-)\31(.-)\31(.-)\31(.-)\31(.-)\31(.*)$')}
  end
  local function keep_place(place, state)
    redis.call('HSET', places, place, table.concat(state, '\31'))
    redis.call('EXPIRE', places, OUTBOX_TTL_S)
  end

  local function forget(id)
    local text = redis.call('HGET', all, id)
    redis.call('HDEL', all, id)
    redis.call('ZREM', ages, id)
    for place in places_of(text or '') do
      local was_open = redis.call('ZREM', all .. '/due/' .. place, id) == 1
      redis.call('HDEL', all .. '/to/' .. place, id)
      if was_open and redis.call('HGET', places, place) then
        local state = place_of(place)
        state[5] = string.format('%.0f', state[5] + 1)
        keep_place(place, state)
      end
    end
  end

  local function tell(id, at, text)
    if redis.call('HGET', all, id) then return false end
    if redis.call('HLEN', all) >= OUTBOX_MAX then
      forget(redis.call('ZRANGEBYSCORE', ages, '-inf', '+inf', 'LIMIT', '0', '1')[1])
    end
    local function add(key)
      if undo then undo[#undo + 1] = {'ZREM', key, id} end
      redis.call('ZADD', key, at, id)
    end
    if undo then undo[#undo + 1] = {'HDEL', all, id} end
    redis.call('HSET', all, id, text)
    add(ages)
    redis.call('EXPIRE', all, OUTBOX_TTL_S)
    redis.call('EXPIRE', ages, OUTBOX_TTL_S)
    for place in places_of(text) do
      add(all .. '/due/' .. place)
      redis.call('EXPIRE', all .. '/due/' .. place, OUTBOX_TTL_S)
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
  local function tell_order(text, id, at, account, who, raised)
    local steps = ''
    if account and redis.call('HGET', account, 't') then
      local numbers = redis.call('HGET', account, 'n')
      steps = numbers and struct.unpack('<i4', string.sub(numbers, 49, 52)) or 0
      who, steps = who_of(account), string.format('%.0f', steps)
    end
    local known = {['\28'] = who, ['\27'] = steps, ['\26'] = raised or ''}
    text = string.gsub(text, '[\26-\28]', known)
    local subject = string.match(text, '\30([^\30]*)\30[^\30]*$')
    tell(redis.sha1hex(subject .. ' ' .. id), at, text)
  end

  return {tell = tell, tell_order = tell_order, forget = forget, places_of = places_of,
    place_of = place_of, keep_place = keep_place}
end

