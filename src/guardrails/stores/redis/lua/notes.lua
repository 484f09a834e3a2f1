-- notes.lua: adds to the sums of hours what calls came to. It stands before the scripts
-- that do so, and is no script of its own.
--
-- To add each call to its sums at once took a fifth of the call's time. So a call only
-- notes what it comes to, and now and then all notes are added together: most have the
-- same names. Who reads sums reads the notes with them, see sums.lua.
--
-- A note is the hour, then dimension and name of each of its sums; the numbers; and behind
-- them those of layers, if the tokens are divided. See `Spend` in core/reporting/rollups.py.
local SUMS, SUMS_BYTES, HOUR_TTL_S = '<i8i8i4i4i8i8i4i4i4i8i8i8i8i8i8i8', 108, '34560000'
-- How many notes are added together, and the last one that is if that failed before: that
-- takes less than a millisecond, whatever their names. Of more than the maximum, which are
-- half a MB, no call is booked until they can be added.
local NOTES_TOGETHER, NOTES_LAST, NOTES_MAX = 8, '63', 1000

-- Returns why they cannot be added, if so, and then all is as it was; else how many were.
local function add_notes(prefix)
  local call, notes, undo, cells = redis.call, prefix .. 'notes', {}, {}
  local LAYERS = '<' .. string.rep('i8', 22)

  local function numbers_in(format, text, at)
    local numbers = {struct.unpack(format, text, at)}
    numbers[#numbers] = nil -- the position that unpack returns last
    return numbers
  end

  -- Written out: a loop takes three times as long.
  local function plus(a, b)
    local sum = {a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5], a[6] + b[6],
      a[7] + b[7], a[8] + b[8], a[9] + b[9], a[10] + b[10], a[11] + b[11], a[12] + b[12],
      a[13] + b[13], a[14] + b[14], a[15] + b[15], a[16] + b[16]}
    for i = 17, #a do sum[i] = a[i] + b[i] end
    return sum
  end
  -- The same of what is kept. Without tables it takes half as long.
  local function plus_kept(text, n)
    local a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q = struct.unpack(SUMS, text)
    return struct.pack(SUMS, a + n[1], b + n[2], c + n[3], d + n[4], e + n[5], f + n[6],
      g + n[7], h + n[8], i + n[9], j + n[10], k + n[11], l + n[12], m + n[13], o + n[14],
      p + n[15], q + n[16])
  end
  local function add_to(named, name, numbers)
    local known = named[name]
    named[name] = known and plus(known, numbers) or numbers
  end
  local function add_to_cell(key, name, numbers)
    cells[key] = cells[key] or {}
    add_to(cells[key], name, numbers)
  end

  -- Adds to all names of one key at once: each command takes as long as adding does.
  local function write(key, named)
    local format = string.sub(key, -6) == '/layer' and LAYERS or SUMS
    local names, fields, old, new = {}, {}, {'HSET', key}, {'HDEL', key}
    for name in pairs(named) do names[#names + 1] = name end
    local found, bytes = call('HMGET', key, unpack(names)), struct.size(format)
    for i, name in ipairs(names) do
      local known, numbers = found[i], named[name]
      if known then
        old[#old + 1] = name
        old[#old + 1] = known
        if #known < bytes then -- an earlier version wrote it, and did not know the last ones
          known = known .. string.rep('\0', bytes - #known)
        end
        if format == LAYERS then numbers = plus(numbers_in(LAYERS, known, 1), numbers) end
      else new[#new + 1] = name end
      fields[2 * i - 1] = name
      fields[2 * i] = known and format == SUMS and plus_kept(known, numbers)
        or struct.pack(format, unpack(numbers))
    end
    call('HSET', key, unpack(fields))
    if #old > 2 then undo[#undo + 1] = old end
    if #new > 2 then undo[#undo + 1] = new end
    if #old == 2 and call('HLEN', key) == #names then call('EXPIRE', key, HOUR_TTL_S) end
  end

  local function add_all()
    -- Both do nothing, and show that what is written can be taken back.
    call('LTRIM', notes, '0', '-1')
    call('HDEL', prefix .. 'nothing', '')
    local texts, sums, layers = call('LRANGE', notes, '0', NOTES_LAST), {}, {}
    for _, text in ipairs(texts) do
      local names, at = struct.unpack('s', text)
      add_to(sums, names, numbers_in(SUMS, text, at))
      if at + SUMS_BYTES <= #text then
        add_to(layers, names, numbers_in(LAYERS, text, at + SUMS_BYTES))
      end
    end
    for names, numbers in pairs(sums) do
      local hour, rest = string.match(names, '^([^\31]*)(.*)$')
      hour = prefix .. 'hour/' .. hour .. '/'
      for dimension, name in string.gmatch(rest, '\31([^\31]*)\31([^\31]*)') do
        add_to_cell(hour .. dimension, name, numbers)
      end
      if layers[names] then add_to_cell(hour .. 'layer', '', layers[names]) end
    end
    for key, named in pairs(cells) do write(key, named) end
    call('LTRIM', notes, string.format('%.0f', #texts), '-1') -- last: it cannot be taken back
    return #texts
  end

  local is_done, reply = pcall(add_all)
  if is_done then return nil, reply end
  for i = #undo, 1, -1 do redis.pcall(unpack(undo[i])) end
  return reply
end

