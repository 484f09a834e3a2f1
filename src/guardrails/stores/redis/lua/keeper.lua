-- keeper.lua: one step of a prune or a forget: never more than a page of work.
--
-- Agents go on between two steps, so each does all that belongs together, and done
-- again it does nothing. What the steps are made of is in rewriting.py and retention.py.
-- KEYS 1 version, of whose prefix all others are made, and 2 one that is never there
-- ARGV 1 order, then
--      delete:  2 owner of the turn, then ids of events
--      copy:    2 owner, 3 last id that was copied ('' = none), 4 last id of this page,
--               then id and text of what is copied as another text
--      swap:    2 owner, 3 last id that was copied, 4 events copied here at most
--      leave:   2 owner
--      notes
--      sums:    2 hour, then per mix: its name, the name it gets, customer, user
--      sessions: 2 instant since which a session is in use, then per session: key of
--               the account, key of the traces, number of its parts, their keys
--      holds:   id, text and new text ('' = none) of unconfirmed holds
--      alerts:  ids
-- reply: delete, copy, swap: nil if it is somebody else's turn; else of copy the last id
--        that was copied, of swap whether the stream is the new one; of notes how many
--        were added to the sums; of sessions how many are in use; else 1
local call, A = redis.call, ARGV
local prefix = string.sub(KEYS[1], 1, -8)
local EVENTS, NEW, TURN = prefix .. 'events', prefix .. 'events/new', prefix .. 'events/turn'
local TURN_MS, NEW_TTL_S, SWAPPED = '30000', '3600', '/swapped'
local NUMBERS, TIMES = '<i8i8i8i8i8i8i4i4i4', '<i8i8i8i8'
local SUMS_COUNT, MODELS, TOOLS = 16, 3, 4

local function changed() count_change(KEYS[1]) end

-- ------------------------------------------------------------- the stream
local function has_turn()
  if call('GET', TURN) ~= A[2] then return false end
  call('SET', TURN, A[2], 'PX', TURN_MS)
  return true
end

local function delete()
  if not has_turn() then return false end
  call('XDEL', EVENTS, unpack(A, 3))
  changed()
  return 1
end

local function copied_last()
  local last = call('XREVRANGE', NEW, '+', '-', 'COUNT', '1')[1]
  return last and last[1] or ''
end
local function after(id) return id == '' and '-' or '(' .. id end

local function copy()
  if not has_turn() then return false end
  local last, texts = copied_last(), {}
  if last ~= A[3] and last ~= A[4] then return false end -- a failover has lost a page
  for i = 5, #A, 2 do texts[A[i]] = A[i + 1] end
  for _, entry in ipairs(call('XRANGE', EVENTS, after(last), A[4])) do
    call('XADD', NEW, entry[1], 'e', texts[entry[1]] or entry[2][2])
  end
  call('EXPIRE', NEW, NEW_TTL_S)
  return copied_last()
end

-- What was booked since the last page is copied as it is.
local function swap()
  if call('GET', TURN) == A[2] .. SWAPPED then return 1 end
  if not has_turn() or copied_last() ~= A[3] then return false end
  local rest = call('XRANGE', EVENTS, after(A[3]), '+', 'COUNT', string.format('%.0f', A[4] + 1))
  if #rest > A[4] + 0 then return 0 end
  for _, entry in ipairs(rest) do call('XADD', NEW, entry[1], 'e', entry[2][2]) end
  if copied_last() == '' then return 1 end -- nothing was there
  call('UNLINK', EVENTS) -- first: what a name is taken from is freed at once
  call('RENAME', NEW, EVENTS)
  call('PERSIST', EVENTS)
  call('SET', TURN, A[2] .. SWAPPED, 'PX', TURN_MS)
  changed()
  return 1
end

local function leave()
  local owner = call('GET', TURN)
  if owner == A[2] or owner == A[2] .. SWAPPED then call('UNLINK', TURN) end
  return 1
end

-- --------------------------------------------------------------- the sums
local function notes()
  local why, count = add_notes(prefix)
  return why and error(why, 0) or count
end

local function sums_of(text)
  -- What an earlier version wrote is shorter: it did not know the last numbers.
  return {struct.unpack(SUMS, text .. string.rep('\0', SUMS_BYTES - #text))}
end

-- Adds sums to a cell, or takes them from it. One that counts no call is none.
local function add(key, name, sums, sign)
  local now = sums_of(call('HGET', key, name) or '')
  for i = 1, SUMS_COUNT do now[i] = now[i] + sign * sums[i] end
  if now[MODELS] + now[TOOLS] <= 0 then call('HDEL', key, name)
  else call('HSET', key, name, struct.pack(SUMS, unpack(now, 1, SUMS_COUNT))) end
end

-- What has no name in a dimension has no cell there: it is the rest of all calls.
local function sums()
  local hour = prefix .. 'hour/' .. A[2] .. '/'
  local mixes, named = hour .. 'mix', {'customer_id', 'user_id'}
  for i = 3, #A, 4 do
    local text = call('HGET', mixes, A[i])
    if text then
      local moved = sums_of(text)
      add(mixes, A[i + 1], moved, 1) -- first: an empty hash would lose its expiry
      call('HDEL', mixes, A[i])
      for j, dimension in ipairs(named) do
        if A[i + 1 + j] ~= '' then add(hour .. dimension, A[i + 1 + j], moved, -1) end
      end
    end
  end
  changed()
  return 1
end

-- ------------------------------------------------- sessions, holds, alerts
local function sessions()
  local in_use, i = 0, 3
  while i <= #A do
    local key, parts = A[i], A[i + 2] + 0
    local found = call('HMGET', key, 'n', 't')
    local numbers = found[1] and {struct.unpack(NUMBERS, found[1])} or {0, 0, 0, 0, 0, 0}
    local _, last = struct.unpack(TIMES, found[2] or string.rep('\0', 32))
    if last - A[2] > 0 or numbers[2] > 0 or numbers[5] > 0 then in_use = in_use + 1
    else call('UNLINK', key, A[i + 1], unpack(A, i + 3, i + 2 + parts)) end
    i = i + 3 + parts
  end
  changed()
  return in_use
end

local function holds()
  local lost = prefix .. 'lost'
  for i = 2, #A, 3 do
    if call('HGET', lost, A[i]) == A[i + 1] then
      if A[i + 2] == '' then call('HDEL', lost, A[i])
      else call('HSET', lost, A[i], A[i + 2]) end
    end
  end
  changed()
  return 1
end

local function alerts()
  local all = prefix .. 'outbox'
  for i = 2, #A do
    local text = call('HGET', all, A[i])
    local subject, places = string.match(text or '', '\30([^\30]*)\30([^\30]*)$')
    for place in string.gmatch(places or '', '%S+') do
      call('ZREM', all .. '/due/' .. place, A[i])
      call('HDEL', all .. '/to/' .. place, A[i])
      call('UNLINK', all .. '/calm/' .. place .. '/' .. redis.sha1hex(subject))
    end
    call('HDEL', all, A[i])
    call('ZREM', all .. '/ages', A[i])
  end
  changed()
  return 1
end

local orders = {delete = delete, copy = copy, swap = swap, leave = leave, notes = notes,
  sums = sums, sessions = sessions, holds = holds, alerts = alerts}
return orders[A[1]]()
