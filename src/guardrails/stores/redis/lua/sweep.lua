-- sweep.lua: turns expired holds into unconfirmed ones.
--
-- `_sweep` of core/ledger.py, at most 100 holds a call, so that no call waits
-- long. Finished holds are forgotten by their keys' own expiry.
-- KEYS 1 version, 2 holds, 3 due, 4 lost
-- ARGV 1 now, 2 holds at most
-- reply: how many became unconfirmed
local call, K = redis.call, KEYS
local NUMBERS, CLOCKS_MS = '<i8i8i8i8i8i8i4i4i4', 60000

-- A client that is ahead would have others' calls expire while they run, and what only
-- had to wait for them would be refused for good.
local now, said = ARGV[1] + 0, redis.pcall('TIME')
if not said.err then now = math.min(now, said[1] * 1000 + CLOCKS_MS) end
-- A server that evicts keys may have taken the list of them: nothing would expire any more.
local open = call('HLEN', K[2])
if open > 0 and #call('ZRANGEBYSCORE', K[3], '-inf', '+inf', 'LIMIT',
    string.format('%.0f', open - 1), '1') == 0 then
  local all = call('HGETALL', K[2])
  for i = 1, #all, 2 do
    call('ZADD', K[3], string.match(all[i + 1], '^.-\31.-\31.-\31(.-)\31'), all[i])
  end
end
local due = call('ZRANGEBYSCORE', K[3], '-inf', string.format('%.0f', now),
  'LIMIT', '0', ARGV[2])
if #due == 0 then return 0 end
-- All is read first: an account is refused where a cluster is moving it elsewhere.
local holds, rows, gone = {}, {}, {'ZREM', K[3], ''}
for _, id in ipairs(due) do
  local hold = call('HGET', K[2], id)
  -- A server that evicts keys takes one and leaves another.
  if hold then holds[id] = hold else gone[#gone + 1] = id end
end
local count = 0
for _, hold in pairs(holds) do
  count = count + 1
  local _, cost, tokens, _, rest = string.match(hold, '^(.-)\31(.-)\31(.-)\31(.-)\31(.*)$')
  for key in string.gmatch(string.sub(rest, 13), '[^\n]+') do
    local known = not rows[key] and call('HGET', key, 'n')
    if known then rows[key] = {struct.unpack(NUMBERS, known)} end
    local row = rows[key]
    if row then -- else the account has expired, and counts for nobody
      row[2], row[5] = row[2] - cost, row[5] - tokens
      row[3], row[6] = row[3] + cost, row[6] + tokens
    end
  end
end
-- Any command may be refused. These do no harm; afterwards none is that takes away.
call(unpack(gone))
if count == 0 then return 0 end
call('HDEL', K[4], '')
count_change(K[1])
for id, hold in pairs(holds) do
  call('HSET', K[4], id, hold)
  call('ZREM', K[3], id)
  call('HDEL', K[2], id)
end
for key, row in pairs(rows) do
  call('HSET', key, 'n', struct.pack(NUMBERS, unpack(row, 1, 9)))
end
return count
