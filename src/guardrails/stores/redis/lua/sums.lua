-- sums.lua: reads sums of one hour, and the notes of it that are not added yet, at one
-- instant: in between they may be. Changes nothing.
-- KEYS 1 notes, then the sums by the names of one dimension
-- ARGV 1 hour
-- reply: the notes, then per dimension its names and sums
local found, start = {{}}, ARGV[1] .. '\31'
for _, text in ipairs(redis.call('LRANGE', KEYS[1], '0', '-1')) do
  if string.sub(text, 1, #start) == start then found[1][#found[1] + 1] = text end
end
for i = 2, #KEYS do found[i] = redis.call('HGETALL', KEYS[i]) end
return found
