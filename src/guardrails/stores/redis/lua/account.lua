-- account.lua: what is asked and ordered of one account; stops are in stops.lua.
--
-- `_close`, `_raise` and `_read` of core/ledger.py.
-- What it tells people of is written by tell.lua, which stands before it.
-- KEYS 1 version, 2 account, 3 traces, 4 audit
-- ARGV 1 close | raise | read, then by order:
--      close: now, active    raise: six limits ('' = as it is), entry of the audit,
--      what is told ('' = nobody wants to know), whose account it is if it says nothing, now
-- reply: the fields of the account, none if it is not known
local call, K, A, order = redis.call, KEYS, ARGV, ARGV[1]
local TIMES = '<i8i8i8i8'
local SESSION_TTL_S, AUDIT_TTL_S, AUDIT_MAX, CLOCK_STEP_MS = '2592000', '34560000', 1000, 60000

local found = call('HMGET', K[2], 'n', 't', 'x')
-- A limit may be raised before the first call: then there are no numbers yet, and
-- the first call sees that the account is new and gives it its own expiry.
local known, stop, raised, alerted = found[1] or found[3], '', '', ''
if found[3] then stop, raised, alerted = string.match(found[3], '^(.-)\30(.-)\30(.*)$') end
local changed = order == 'raise' or order == 'close' and known
if order == 'close' then
  if not found[2] then return {{}, {}} end
  local started, last, active = struct.unpack(TIMES, found[2])
  local now, gap = A[2] + 0, A[2] - last
  if gap > 0 then active, last = active + math.min(A[3] + 0, gap), now
  elseif gap < -CLOCK_STEP_MS then last = now end
  call('HSET', K[2], 't', struct.pack(TIMES, started, last, active, now))
elseif order == 'raise' then
  local limits, i, before, was = {}, 1, raised, stop
  for limit in string.gmatch(raised == '' and ',,,,,' or raised, '([^,]*),?') do
    if i > 6 then break end
    local higher = A[i + 1]
    if higher == '' or (limit ~= '' and limit - higher > 0) then higher = limit end
    limits[i], i = higher, i + 1
  end
  raised, alerted = table.concat(limits, ','), ''
  if string.sub(stop, 1, 15) == 'budget_exceeded' then stop = '' end
  if raised ~= before or stop ~= was then
    call('RPUSH', K[4], A[8] .. '\30' .. before .. '\30' .. raised)
    call('LTRIM', K[4], '-' .. AUDIT_MAX, '-1')
    call('EXPIRE', K[4], AUDIT_TTL_S)
  end
  if raised ~= before and A[9] ~= '' then
    outbox_of(string.sub(K[1], 1, -8)).tell_order(A[9], raised, A[11], K[2], A[10], raised)
  end
end
if changed then
  if stop .. raised .. alerted == '' then call('HDEL', K[2], 'x')
  else call('HSET', K[2], 'x', stop .. '\30' .. raised .. '\30' .. alerted) end
  if not known then call('EXPIRE', K[2], SESSION_TTL_S) end
  count_change(K[1])
end
return {call('HGETALL', K[2]), call('LRANGE', K[3], '0', '-1')}
