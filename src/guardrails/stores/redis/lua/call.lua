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
-- It is one script in parts, in this order: version.lua; tell.lua, loops.lua and
-- notes.lua, which only few calls need; rows.lua, the accounts; alerts.lua, what people
-- are told; settle.lua and reserve.lua, the two halves; and this one, which runs them and
-- writes the accounts.
--
-- KEYS 1 version, 2 holds, 3 due, 4 lost, 5-8 finished, 9 events, 10 stops, 11 notes,
--      12 one that is never there (see keys.py), 13 traces of the session, then one account
--      per line
-- ARGV 1     numbers: lines, session lines, known version; of the settle now, cost, tokens
--            and kind (8 = model, 9 = tool), of the reserve the same; active ms per
--            session line: settle, then reserve
--      2-6   settle: id ('' = none), content, event, trace, note (see notes.lua)
--      7-10  reserve: id ('' = none), the hold without its accounts, expiry, and the
--            trace of it if it is refused for a loop ('' = takes no part)
--      11    events kept
--      12-13 of all lines: limits, see `limits_of`; raised limits ('' = none anywhere)
--      14-16 digest of the accounts and the accounts, thresholds, see `crossings`, and
--            what few calls need, see `about`
--      17-19 loop: action ('' = no rule), rule; enforced and what is told (see `telling`)
--      then  the fields of the stops that the call falls under
-- reply {'ok', version, settled, reserved, rows}; 1 for a half without anything to
--       tell; rows as they are now, if all of them changed.
--       {'raised', line, limits}: the client did not know of raised limits.
--       {'rolled back', version}: the store has forgotten what the client saw, or all.

-- Has an account end, if it is there; an account that lives on needs nothing. A window
-- ends by the caller's clock: by that of the server it may have been over long ago.
local function expire(i)
  local row, key = rows[i], K[TRACES + i]
  if i <= sessions then
    if row.opens or row.lives then call('EXPIRE', key, SESSION_TTL_S) end
  elseif row.is_new then -- its limit may have been raised before
    local _, til = about(i)
    local asked = struct.unpack('<i8', A[CALL], A[RESERVED_ID] ~= '' and RESERVED or SETTLED)
    if til == '' then call('PERSIST', key)
    else call('EXPIRE', key, int(math.max(0, til - asked) / 1000 + GRACE_S)) end
  end
end

local function write(i)
  local row, key = rows[i], K[TRACES + i]
  local numbers = struct.pack(NUMBERS, unpack(row, 1, 9))
  local fields = {'n', numbers}
  if i <= sessions then
    fields[3], fields[4] = 't', struct.pack(TIMES, unpack(row, STARTED, ENDED))
  end
  if row.stop ~= '' or row.raised ~= '' or row.alerted ~= '' then
    fields[#fields + 1] = 'x'
    fields[#fields + 1] = row.stop .. '\30' .. row.raised .. '\30' .. row.alerted
  end
  if row.is_new or row.opens then
    local _, til, who = about(i)
    if row.is_new and til ~= '' then
      fields[#fields + 1], fields[#fields + 2] = 'e', til
    end
    if row.opens then -- in pieces: one value above 64 bytes costs a session 400 more
      for piece = 0, math.ceil(#who / 60) - 1 do
        fields[#fields + 1] = 'w' .. piece
        fields[#fields + 1] = string.sub(who, piece * 60 + 1, piece * 60 + 60)
      end
    end
  end
  call('HSET', key, unpack(fields))
  expire(i)
  return numbers
end

local function run()
  local settled = A[SETTLED_ID] ~= '' and settle() or 0
  local reserved = A[RESERVED_ID] ~= '' and reserve() or 0
  local dirty, now = 0, {}
  for i = 1, count do
    if rows[i].dirty then
      dirty = dirty + 1
      expire(i) -- does nothing to a new one, but shows that it may be done
    end
  end
  if dirty > 0 or has_refused then version = count_change(K[VERSION]) end
  -- Whoever calls seldom never has enough notes to be added: those of today live on.
  if notes == 1 or rows[1].opens or rows[1].lives then call('EXPIRE', K[NOTES], HOUR_TTL_S) end
  -- The last that may be refused, since it cannot be taken back.
  if notes > 0 then call('XADD', K[EVENTS], 'MAXLEN', '~', A[EVENTS_KEPT], '*', 'e', A[EVENT]) end
  for i = 1, count do
    if rows[i].dirty then now[i] = write(i) end
  end
  -- If it fails it is done with those that follow: all is booked by now.
  if notes > 0 and notes % NOTES_TOGETHER == 0 then add_notes(project) end
  return {'ok', tonumber(version), settled, reserved, dirty == count and table.concat(now) or ''}
end

local is_done, reply = pcall(run)
if not is_done then
  for i = #undo, 1, -1 do redis.pcall(unpack(undo[i])) end
  error(reply, 0)
end
return reply
