-- release.lua: gives a hold back, because its call was never sent.
--
-- `_release` of core/ledger.py. The accounts are those that the hold names; all
-- keys of a project are in one slot.
-- KEYS 1 version, 2 holds, 3 due, 4 lost, 5-8 finished
-- ARGV 1 id
-- reply 1 if it was open or unconfirmed, else 0
local call, K, id = redis.call, KEYS, ARGV[1]
local NUMBERS, DONE_TTL_S = '<i8i8i8i8i8i8i4i4i4', '99000'

local hold, slot = call('HGET', K[2], id), 2
if not hold then hold, slot = call('HGET', K[4], id), 3 end
if not hold then return 0 end
local kind, cost, tokens, _, rest = string.match(hold, '^(.-)\31(.-)\31(.-)\31(.-)\31(.*)$')
local calls = kind == 'model' and 8 or 9
local keys, rows = {}, {}
for key in string.gmatch(string.sub(rest, 13), '[^\n]+') do
  local known = call('HGET', key, 'n')
  if known then -- else the account has expired, and counts for nobody
    local row = {struct.unpack(NUMBERS, known)}
    row[slot], row[slot + 3] = row[slot] - cost, row[slot + 3] - tokens
    row[7], row[calls] = row[7] - 1, row[calls] - 1
    keys[#keys + 1], rows[#rows + 1] = key, struct.pack(NUMBERS, unpack(row, 1, 9))
  end
end
-- Any command may be refused: none of these does harm to a hold that stays, and then
-- nothing is refused any more.
call('ZREM', K[3], id)
call('HSET', K[5], id, 'r' .. string.sub(rest, 1, 12))
call('EXPIRE', K[5], DONE_TTL_S)
count_change(K[1])
call('HDEL', K[slot == 2 and 2 or 4], id)
for i, key in ipairs(keys) do call('HSET', key, 'n', rows[i]) end
return 1
