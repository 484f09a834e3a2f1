-- balance.lua: what accounts hold, and their project's holds, at one instant.
--
-- Only reads. `guardrails doctor` asks it, because two reads one after the other
-- would see what calls change in between.
-- KEYS 1 holds, 2 lost, then accounts
-- reply {open holds, unconfirmed holds, the numbers of each account ('' = none)}
local call, K = redis.call, KEYS
local numbers = {}
for i = 3, #K do numbers[i - 2] = call('HGET', K[i], 'n') or '' end
return {call('HVALS', K[1]), call('HVALS', K[2]), numbers}
