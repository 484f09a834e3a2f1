-- call.lua: books the call that has ended and reserves the one that begins.
--
-- Either half may be left out. This is `_settle` and `_reserve` of
-- core/ledger.py, which is the specification: the tests compare the two reply
-- by reply. Nothing is written before the last check of a half. A script that fails is
-- not rolled back, and each command in it may be refused: the user may have lost one
-- right. So what was written is taken back, by commands that were not refused before,
-- and what cannot be taken back comes last.
--
-- Only strings go into redis.call: how Lua prints a number there depends on the
-- server's version. Sums stay below 2^53, where doubles are exact.
--
-- It is one script in parts, in this order: tell.lua and loops.lua, which only few
-- calls need; rows.lua, the accounts; alerts.lua, what people are told; settle.lua and
-- reserve.lua, the two halves; and this one, which runs them and writes the accounts.
--
-- KEYS 1 version, 2 holds, 3 due, 4 lost, 5-8 finished, 9 events, 10 stops,
--      11 traces of the session, then one account per line, then one rollup per cell
-- ARGV 1-2   known version, lines
--      3-11  settle: id ('' = none), now, kind, cost, tokens, content, event, trace, sums
--      12-19 reserve: id ('' = none), now, kind, cost, tokens, content, expiry, and the
--            trace of it if it is refused for a loop ('' = takes no part)
--      20-27 enforced and what is told (see `telling`), loop: repeats, of cycles, of
--            errors, of polling, within, action ('' = no rule), refusals
--      28-31 digest of the accounts, the accounts, events kept, session lines
--      32-   active ms per session line: settle, then reserve
--      then  cells, and the name of each
--      then  per line 12 + 3 per threshold, see `line` below
--      then  the fields of the stops that the call falls under
-- reply {'ok', version, settled, reserved, rows}; 1 for a half without anything to
--       tell; rows as they are now, if all of them changed.
--       {'raised', line, limits}: the client did not know of raised limits.
--       {'rolled back', version}: the store has forgotten what the client saw.

local asked = A[12] ~= '' and A[13] or A[4]

-- Has an account end, if it is there; an account that lives on needs nothing. A window
-- ends by the caller's clock: by that of the server it may have been over long ago.
local function expire(i)
  local row, key, til = rows[i], K[TRACES + i], A[line[i] + 8]
  if is_session(i) then
    if row.opens or row.lives then call('EXPIRE', key, SESSION_TTL_S) end
  elseif row.is_new then -- its limit may have been raised before
    if til == '' then call('PERSIST', key)
    else call('EXPIRE', key, int(math.max(0, til - asked) / 1000 + GRACE_S)) end
  end
end

local function write(i)
  local row, key, p = rows[i], K[TRACES + i], line[i]
  local numbers = struct.pack(NUMBERS, unpack(row, 1, 9))
  local fields = {'n', numbers}
  if is_session(i) then
    fields[3], fields[4] = 't', struct.pack(TIMES, unpack(row, STARTED, ENDED))
  end
  if row.stop ~= '' or row.raised ~= '' or row.alerted ~= '' then
    fields[#fields + 1] = 'x'
    fields[#fields + 1] = row.stop .. '\30' .. row.raised .. '\30' .. row.alerted
  end
  if row.is_new and A[p + 8] ~= '' then
    fields[#fields + 1], fields[#fields + 2] = 'e', A[p + 8]
  end
  if row.opens then -- in pieces: one value above 64 bytes costs a session 400 more
    for piece = 0, math.ceil(#A[p + 9] / 60) - 1 do
      fields[#fields + 1] = 'w' .. piece
      fields[#fields + 1] = string.sub(A[p + 9], piece * 60 + 1, piece * 60 + 60)
    end
  end
  call('HSET', key, unpack(fields))
  expire(i)
  return numbers
end

local function run()
  local settled = A[3] ~= '' and settle() or 0
  local reserved = A[12] ~= '' and reserve() or 0
  local dirty, now = 0, {}
  for i = 1, count do
    if rows[i].dirty then
      dirty = dirty + 1
      expire(i) -- does nothing to a new one, but shows that it may be done
    end
  end
  if dirty > 0 or has_refused then version = call('INCR', K[VERSION]) end
  -- The last that may be refused, since it cannot be taken back.
  if has_event then call('XADD', K[EVENTS], 'MAXLEN', '~', A[30], '*', 'e', A[9]) end
  for i = 1, count do
    if rows[i].dirty then now[i] = write(i) end
  end
  return {'ok', tonumber(version), settled, reserved, dirty == count and table.concat(now) or ''}
end

local is_done, reply = pcall(run)
if not is_done then
  for i = #undo, 1, -1 do redis.pcall(unpack(undo[i])) end
  error(reply, 0)
end
return reply
