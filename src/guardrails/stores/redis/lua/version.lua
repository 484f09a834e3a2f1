-- version.lua: counts up the changes of a project. It stands before the scripts that
-- change something, and is no script of its own.
--
-- Who sees a lower version than before knows that the store has lost something. So one
-- that begins anew, because all was flushed, begins below all that were reached before:
-- later by a millisecond is lower by more than is changed in one. Else others would
-- have counted on by the time that some process calls again, and it would notice nothing.
local VERSIONS, PER_MS = 9007199254740992, 2048 -- 2^53, until the year 2109

local function count_change(key)
  local version = redis.call('INCR', key)
  if version > 1 then return version end
  local said = redis.pcall('TIME')
  if said.err then return version end -- then it begins at 1, as before
  local ms = said[1] * 1000 + math.floor(said[2] / 1000)
  local first = VERSIONS - ms * PER_MS
  if redis.pcall('SET', key, string.format('%.0f', first)).err then return version end
  return first
end
