-- notes.lua: adds to the sums of hours what calls came to. It stands before the scripts
-- that do so, and is no script of its own.
--
-- To add each call to its sums at once took a fifth of the call's time. So a call only
-- notes what it comes to, and now and then all notes are added together: most have the
-- same names. Who reads sums reads the notes with them, see sums.lua.
--
-- A note is the hour, then dimension and name of each of its sums; the numbers; and behind
-- them those of layers, if the tokens are divided. See `Spend` in core/rollups.py.
local SUMS, SUMS_BYTES, HOUR_TTL_S = '<i8i8i4i4i8i8i4i4i4i8i8i8i8i8i8i8', 108, '34560000'
-- How many notes are added together, and the last one that is if that failed before. Of
-- more than the maximum, which are 4 MB, no call is booked until they can be added.
local NOTES_TOGETHER, NOTES_LAST, NOTES_MAX = 32, '255', 10000

-- Returns why they cannot be added, if so, and then all is as it was; else how many were.
local function add_notes(prefix)
  local call, notes, undo, cells = redis.call, prefix .. 'notes', {}, {}
  local LAYERS = '<' .. string.rep('i8', 22)

  local function numbers_in(format, text, at)
    local numbers = {struct.unpack(format, text, at)}
    numbers[#numbers] = nil -- the position that unpack returns last
    return numbers
  end

  local function add(into, numbers)
    for i = 1, #numbers do into[i] = (into[i] or 0) + numbers[i] end
    return into
  end
  local function add_to(key, name, numbers)
    cells[key] = cells[key] or {}
    cells[key][name] = add(cells[key][name] or {}, numbers)
  end

  local function write(key, name, numbers)
    local format = string.sub(key, -6) == '/layer' and LAYERS or SUMS
    local known = call('HGET', key, name)
    if known then -- what an earlier version wrote is shorter: it did not know the last ones
      local missing = string.rep('\0', struct.size(format) - #known)
      add(numbers, numbers_in(format, known .. missing, 1))
    end
    call('HSET', key, name, struct.pack(format, unpack(numbers)))
    undo[#undo + 1] = known and {'HSET', key, name, known} or {'HDEL', key, name}
    if not known and call('HLEN', key) == 1 then call('EXPIRE', key, HOUR_TTL_S) end
  end

  local function add_all()
    local texts, sums, layers = call('LRANGE', notes, '0', NOTES_LAST), {}, {}
    for _, text in ipairs(texts) do
      local names, at = struct.unpack('s', text)
      sums[names] = add(sums[names] or {}, numbers_in(SUMS, text, at))
      if at + SUMS_BYTES <= #text then
        local parts = numbers_in(LAYERS, text, at + SUMS_BYTES)
        layers[names] = add(layers[names] or {}, parts)
      end
    end
    for names, numbers in pairs(sums) do
      local hour, rest = string.match(names, '^([^\31]*)(.*)$')
      hour = prefix .. 'hour/' .. hour .. '/'
      for dimension, name in string.gmatch(rest, '\31([^\31]*)\31([^\31]*)') do
        add_to(hour .. dimension, name, numbers)
      end
      if layers[names] then add_to(hour .. 'layer', '', layers[names]) end
    end
    for key, named in pairs(cells) do
      for name, numbers in pairs(named) do write(key, name, numbers) end
    end
    call('LTRIM', notes, string.format('%.0f', #texts), '-1') -- last: it cannot be taken back
    return #texts
  end

  local is_done, reply = pcall(add_all)
  if is_done then return nil, reply end
  for i = #undo, 1, -1 do redis.pcall(unpack(undo[i])) end
  return reply
end

