-- account.lua: what is asked and ordered of one account, mostly by people.
--
-- `_close`, `_stop`, `_resume`, `_raise` and `_read` of core/ledger.py.
-- KEYS 1 version, 2 account, 3 traces
-- ARGV 1 close | stop | resume | raise | read, then by order:
--      close: now, active    stop: now, stop, who    raise: six limits, '' = as it is
-- reply: the fields of the account, none if it is not known
local call, K, A, order = redis.call, KEYS, ARGV, ARGV[1]
local NUMBERS, TIMES, ZEROS = '<i8i8i8i8i8i8i4i4i4', '<i8i8i8i8', {0, 0, 0, 0, 0, 0, 0, 0, 0}
local SESSION_TTL_S, CLOCK_STEP_MS = '2592000', 60000

local found = call('HMGET', K[2], 'n', 't', 'x')
-- A limit may be raised before the first call: then there are no numbers yet, and
-- the first call sees that the account is new and gives it its own expiry.
local known, stop, raised, alerted = found[1] or found[3], '', '', ''
if found[3] then stop, raised, alerted = string.match(found[3], '^(.-)\30(.-)\30(.*)$') end
if order == 'stop' and not found[1] then
  call('HSET', K[2], 'n', struct.pack(NUMBERS, unpack(ZEROS)))
end

local changed = order ~= 'read' and (known or order == 'stop' or order == 'raise')
if order == 'close' then
  if not found[2] then return {{}, {}} end
  local started, last, active = struct.unpack(TIMES, found[2])
  local now, gap = A[2] + 0, A[2] - last
  if gap > 0 then active, last = active + math.min(A[3] + 0, gap), now
  elseif gap < -CLOCK_STEP_MS then last = now end
  call('HSET', K[2], 't', struct.pack(TIMES, started, last, active, now))
elseif order == 'stop' then
  if not found[2] then
    call('HSET', K[2], 't', struct.pack(TIMES, A[2], A[2], 0, -1))
    for piece = 0, math.ceil(#A[4] / 60) - 1 do
      call('HSET', K[2], 'w' .. piece, string.sub(A[4], piece * 60 + 1, piece * 60 + 60))
    end
  end
  if stop == '' then stop = A[3] end
elseif order == 'resume' then
  stop = ''
  call('DEL', K[3])
elseif order == 'raise' then
  local limits, i = {}, 1
  for limit in string.gmatch(raised == '' and ',,,,,' or raised, '([^,]*),?') do
    if i > 6 then break end
    local higher = A[i + 1]
    if higher == '' or (limit ~= '' and limit - higher > 0) then higher = limit end
    limits[i], i = higher, i + 1
  end
  raised, alerted = table.concat(limits, ','), ''
  if string.sub(stop, 1, 15) == 'budget_exceeded' then stop = '' end
end
if changed then
  if stop .. raised .. alerted == '' then call('HDEL', K[2], 'x')
  else call('HSET', K[2], 'x', stop .. '\30' .. raised .. '\30' .. alerted) end
  if not known then call('EXPIRE', K[2], SESSION_TTL_S) end
  call('INCR', K[1])
end
return {call('HGETALL', K[2]), call('LRANGE', K[3], '0', '-1')}
