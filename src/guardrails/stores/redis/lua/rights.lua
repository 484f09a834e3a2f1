-- rights.lua: which commands on a key the caller may not run.
--
-- Changes nothing, and runs none of them. `guardrails doctor` asks it.
-- ARGV key, then of each command its name and how many arguments follow the key
-- reply the names that are refused; nil if this server cannot say (Redis 6.2)
if not redis.acl_check_cmd then return false end
local refused = {}
for i = 2, #ARGV, 2 do
  -- Complete, as a call would be: Redis 7.0 dies of some that lack a key.
  local words = {ARGV[i], ARGV[1]}
  for j = 1, tonumber(ARGV[i + 1]) do words[2 + j] = '0' end
  local is_known, is_allowed = pcall(redis.acl_check_cmd, unpack(words))
  if is_known and not is_allowed then refused[#refused + 1] = ARGV[i] end
end
return refused
