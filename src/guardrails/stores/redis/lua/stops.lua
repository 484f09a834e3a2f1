-- stops.lua: what a person stops and lets go on, and the list of that.
--
-- `_stop`, `_resume`, `_stop_scope`, `_resume_scope` of core/ledger.py, and `Stops`
-- of core/stops.py. People order it, so it may look at the whole list of stops.
-- KEYS 1 version, 2 stops, 3 audit; for a session 4 account, 5 traces
-- ARGV 1 stop | resume | read, 2 now, 3 field of the order, 4 entry of the audit
--      stop: 5 until ('' = no end), 6 order, 7 orders at most
--      stop a session for good: 8 stop, 9 who
--      stop: 10 what is told, by tell.lua, which stands before it ('' = nothing)
--      read: 3 '' or entries of the audit
-- reply: {order in force or lifted ('' = none), account, traces}; of read {stops, audit}
local call, K, A = redis.call, KEYS, ARGV
local order, now, field = A[1], A[2] + 0, A[3]
local NUMBERS, TIMES = '<i8i8i8i8i8i8i4i4i4', '<i8i8i8i8'
local ZEROS = {0, 0, 0, 0, 0, 0, 0, 0, 0}
local SESSION_TTL_S, AUDIT_TTL_S, DAY_MS, LISTED_MS = '2592000', '34560000', 86400000, 2592000000
local AUDIT_MAX = 1000

if order == 'read' then
  if field ~= '' then return {{}, call('LRANGE', K[3], '-' .. field, '-1')} end
  return {call('HGETALL', K[2]), {}}
end

-- When an order is over in ms, if ever. A session that was stopped for good keeps
-- that in its account, and is listed for a while.
local function end_of(name, text)
  local til, at = string.match(text, '^(%d*)\31(%d+)\31')
  if til ~= '' then return til + 0 end
  if string.sub(name, 1, 8) == 'session/' then return at + LISTED_MS end
end

-- ------------------------------------------------------- the list of stops
local list, orders, count = call('HGETALL', K[2]), {}, 0
for i = 1, #list, 2 do
  local last = end_of(list[i], list[i + 1])
  if last and now - last >= 0 then call('HDEL', K[2], list[i])
  else orders[list[i]], count = list[i + 1], count + 1 end
end

local known, changed = orders[field], false
local in_force = known or ''
if order == 'stop' then
  local til = known and string.match(known, '^(%d*)\31')
  local outlasts = not known or til ~= '' and (A[5] == '' or A[5] - til > 0)
  if outlasts and (known or count < A[7] + 0) then
    call('HSET', K[2], field, A[6])
    orders[field], in_force, changed = A[6], A[6], true
  end
elseif known then
  call('HDEL', K[2], field)
  orders[field], changed = nil, true
end

-- It lives as long as the last order in it, which may be for ever.
local last = now
for name, text in pairs(orders) do
  local its = end_of(name, text)
  last = last and its and math.max(last, its)
end
if next(orders) then
  if last then call('EXPIRE', K[2], string.format('%.0f', (last - now + DAY_MS) / 1000))
  else call('PERSIST', K[2]) end
end

-- ------------------------------------------------------------ the session
local is_told = changed
if K[4] then
  local found = call('HMGET', K[4], 'n', 't', 'x')
  local stop, raised, alerted, exists = '', '', '', found[1] or found[3]
  if found[3] then stop, raised, alerted = string.match(found[3], '^(.-)\30(.-)\30(.*)$') end
  if order == 'stop' then
    if not found[1] then call('HSET', K[4], 'n', struct.pack(NUMBERS, unpack(ZEROS))) end
    if not found[2] then
      call('HSET', K[4], 't', struct.pack(TIMES, A[2], A[2], 0, -1))
      for piece = 0, math.ceil(#A[9] / 60) - 1 do
        call('HSET', K[4], 'w' .. piece, string.sub(A[9], piece * 60 + 1, piece * 60 + 60))
      end
    end
    if not exists then call('EXPIRE', K[4], SESSION_TTL_S) end
    -- A person's stop replaces any but a person's: a raised limit must not lift it.
    is_told = string.sub(stop, 1, 6) ~= 'killed'
    if is_told then stop = A[8] end
  else
    is_told = changed or stop ~= ''
    stop = ''
    call('DEL', K[5])
  end
  if exists or order == 'stop' then
    if stop .. raised .. alerted == '' then call('HDEL', K[4], 'x')
    else call('HSET', K[4], 'x', stop .. '\30' .. raised .. '\30' .. alerted) end
    changed = true
  end
end

if is_told then
  call('RPUSH', K[3], A[4])
  call('LTRIM', K[3], '-' .. AUDIT_MAX, '-1')
  call('EXPIRE', K[3], AUDIT_TTL_S)
end
if is_told and order == 'stop' and A[10] ~= '' then
  outbox_of(string.sub(K[1], 1, -8)).tell_order(A[10], A[2], A[2], K[4])
end
if changed or is_told then count_change(K[1]) end
if not K[4] then return {in_force, {}, {}} end
return {in_force, call('HGETALL', K[4]), call('LRANGE', K[5], '0', '-1')}
