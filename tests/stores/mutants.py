"""Mutants: deliberate mistakes in the scripts, each of which the tests must notice.

By name: the script, a text that is in it once, and what stands there instead.
"""

from guardrails.stores.redis.codec.scripts import Script

CALL = {
    # Limits
    "a budget is full before its limit": (
        "money + cost > cost_max then\n    waiting",
        "money + cost >= cost_max then\n    waiting",
    ),
    "a budget is final before its limit": (
        "money - row[2] + cost > cost_max",
        "money - row[2] + cost >= cost_max",
    ),
    "tokens are final before their limit": (
        "words - row[5] + tokens > tokens_max\n",
        "words - row[5] + tokens >= tokens_max\n",
    ),
    "one step more": ("row[STEPS] >= steps_max", "row[STEPS] > steps_max"),
    "one call more": ("row[calls] >= calls_max", "row[calls] > calls_max"),
    "one millisecond more": ("elapsed >= active_max", "elapsed > active_max"),
    "open holds do not count": (
        "money, words = row[1] + row[2] + row[3], row[4] + row[5] + row[6]",
        "money, words = row[1] + row[3], row[4] + row[6]",
    ),
    "unconfirmed holds do not count": (
        "money, words = row[1] + row[2] + row[3], row[4] + row[5] + row[6]",
        "money, words = row[1] + row[2], row[4] + row[5]",
    ),
    "waiting is denying": ("final and 'deny' or 'wait'", "'deny'"),
    "lines that do not bind do": ("if binds == 0 then return nil, false end", ""),
    "the last line is not asked": (
        "for i = 1, count do\n    local found, final",
        "for i = 1, math.max(1, count - 1) do\n    local found, final",
    ),
    "refuses while it observes": (
        "if enforced then return answer end",
        "do return answer end",
    ),
    "raised limits are not told": (
        "if row.raised ~= known then return {'raised', i, row.raised} end",
        "",
    ),
    # Stops
    "a denial does not stop": (
        "if final and enforced and where <= sessions then",
        "if false then",
    ),
    "a denial of a shared budget stops": (
        "if final and enforced and where <= sessions then",
        "if final and enforced then",
    ),
    "a stop does not refuse": (
        "if row.stop ~= '' then return 'stop', true end",
        "",
    ),
    "a person's stop does not refuse": (
        "if order then answer =",
        "if false then answer =",
    ),
    "a person's stop is over late": ("now - til < 0", "now - til <= 0"),
    "a person's stop never ends": (
        "if til and til ~= '' and now - til < 0 then",
        "if til then",
    ),
    "a person's stop without an end is none": (
        "'session/' then return text, i end",
        "'session/' then end",
    ),
    "a person's stop of everything is all that counts": (
        "call('HMGET', K[STOPS], unpack(A, STOP_FIELDS))",
        "call('HMGET', K[STOPS], A[STOP_FIELDS])",
    ),
    "a listed session is stopped twice": (
        "til == '' and string.sub(A[STOP_FIELDS - 1 + i], 1, 8) ~= 'session/'",
        "til == ''",
    ),
    "a stop is overwritten": (
        "if i <= sessions and enforced and row.stop == '' then",
        "if i <= sessions and enforced then",
    ),
    "spending all is overrunning": (
        "money > cost_max then stop_for",
        "money >= cost_max then stop_for",
    ),
    "an overrun does not stop": (
        "money > cost_max then stop_for",
        "false then stop_for",
    ),
    # Holds
    "a settled hold stays open": (
        "    call('HDEL', holds, id)\n",
        "",
    ),
    "a settled hold stays due": (
        "  call('ZREM', K[DUE], id)\n  finish(",
        "  finish(",
    ),
    "a hold settled late stays unconfirmed": (
        "if hold then\n    local holds",
        "if hold and slot == 2 then\n    local holds",
    ),
    "a settled id is forgotten": (
        "\n  finish(id, content, digest)",
        "",
    ),
    "a settled id is settled again": (
        "if known and string.sub(known, 1, 1) == 's' then return {0} end",
        "",
    ),
    "a settled id is forgotten with the period": (
        "for i = DONE, EVENTS - 1 do",
        "for i = DONE, DONE do",
    ),
    "posted is held": (
        "row[1], row[4] = row[1] + cost, row[4] + tokens",
        "row[2], row[5] = row[2] + cost, row[5] + tokens",
    ),
    "held is posted": (
        "row[2], row[5] = row[2] + cost, row[5] + tokens",
        "row[1], row[4] = row[1] + cost, row[4] + tokens",
    ),
    "settling leaves it held": (
        "row[slot], row[slot + 3] = row[slot] - held_cost, row[slot + 3] - held_tokens",
        "",
    ),
    "settling gives back what it cost": (
        "row[slot] - held_cost, row[slot + 3] - held_tokens",
        "row[slot] - cost, row[slot + 3] - tokens",
    ),
    "one id with two contents": (
        "return content == string.sub(A[HOLD], -6) and 1 or {'conflict'} end",
        "return 1 end",
    ),
    "what was given back admits a call": (
        "string.sub(known, 1, 1) == 's' and string.sub(known, 2, 7)",
        "string.sub(known, 2, 7)",
    ),
    "one id with two accounts": (
        "if digest ~= string.sub(A[CHARGED], 1, 6) then return {-1} end",
        "",
    ),
    "a hold is due at once": (
        "call('ZADD', K[DUE], A[EXPIRY], id)",
        "call('ZADD', K[DUE], '0', id)",
    ),
    "a lost hold's settling is no step": (
        "else row[STEPS], row[calls] = row[STEPS] + 1, row[calls] + 1 end",
        "end",
    ),
    # Thresholds
    "a threshold is told twice": (
        "row.alerted = row.alerted == '' and label or row.alerted .. '\\31' .. label\n",
        "\n",
    ),
    "a threshold is told too late": ("value <= row[slot]", "value < row[slot]"),
    # Sessions
    "a settling does not touch the session": (
        "touch(i, now, SETTLED)\n    local is_held",
        "row.dirty = true\n    local is_held",
    ),
    "a reservation does not touch the session": (
        "touch(i, now, RESERVED)\n    row[2]",
        "row.dirty = true\n    row[2]",
    ),
    "waiting counts as active": ("math.min(active_of(i, half), gap)", "gap"),
    "a clock that was set back stays ahead": (
        "elseif gap < -CLOCK_STEP_MS then row[LAST] = now end",
        "end",
    ),
    "a session that goes on has ended": ("row[ENDED] = -1\nend", "end"),
    # Loops
    "results do not matter": (
        "return a[3] ~= '' and a[3] == b[3] and is_like(a, b)",
        "return is_like(a, b)",
    ),
    "a result that is not known is a result": (
        "return a[3] ~= '' and a[3] == b[3]",
        "return a[3] == b[3]",
    ),
    "a tool does not matter": (
        "return a[1] == b[1] and a[2] == b[2] end",
        "return a[2] == b[2] end",
    ),
    "what failed is what did not": ("string.sub(a[3], 1, 1) == '!' and", "true and"),
    "errors of all tools are one": (
        "a[3] == b[3] and a[1] == b[1]\n",
        "a[3] == b[3]\n",
    ),
    "a round is one call too long": (
        "calls >= period * of_cycles then",
        "calls > period * of_cycles then",
    ),
    "rounds are short": (
        "math.max(2, same_call + 1), CYCLE_PERIOD_MAX do",
        "math.max(2, same_call + 1), 2 do",
    ),
    "a run of one call is a round": ("math.max(2, same_call + 1)", "2"),
    "all that is remembered is in view": ("math.min(n, within + 0)", "n"),
    "a cycle names its last tool alone": (
        "for i = n - period + 1, n do tools",
        "for i = n, n do tools",
    ),
    "the first calls of a loop cost nothing": (
        "for i = n - calls + 1, n do cost",
        "for i = n - calls + 2, n do cost",
    ),
    "each turn of a cycle is told": (
        "if now[1] == 'cycle' then return now.period == earlier.period end",
        "",
    ),
    "each error is told": ("(now[1] == 'repeated_error' or now[3]", "(now[3]"),
    "only the last call of a cycle is refused": (
        "for i = #traces - finding.period + 1, #traces do",
        "for i = #traces, #traces do",
    ),
    "a tool that fails is asked with other arguments": (
        "return next_one[1] == finding[2] and finding or nil\n",
        "\n",
    ),
    "refusing goes on for ever": (
        "return refusals > refusals_max + 0",
        "return false",
    ),
    "one refusal too many": ("> refusals_max + 0", "> refusals_max + 1"),
    "observing counts refusals": (
        "if enforced then\n        has_refused",
        "if true then\n        has_refused",
    ),
    "a call that asks again counts again": (
        "elseif known[4] ~= id then kept",
        "else kept",
    ),
    "refusals are not forgotten": ("if known[3] ~= REFUSED and (id", "if (id"),
    "a refusal is a result": ("if trace[3] == REFUSED then break end", ""),
    "a refusal leaves the version": ("dirty > 0 or has_refused", "dirty > 0"),
    "a call that is run again repeats itself": (
        "known[3] ~= REFUSED and (id == '' or known[4] ~= id)",
        "known[3] ~= REFUSED",
    ),
    "a loop is told again": ("if told then text = '' end", ""),
    # History
    "no event": (
        "call('XADD', K[EVENTS], 'MAXLEN', '~', A[EVENTS_KEPT], '*', 'e', A[EVENT])",
        "",
    ),
    "no notes": ("notes = call('RPUSH', K[NOTES], A[NOTE])", "notes = 1"),
    "notes are not added": (
        "add_to(cells[key], name, numbers)",
        "local _ = numbers",
    ),
    "notes are added twice": (
        "call('LTRIM', notes, string.format('%.0f', #texts), '-1')",
        "call('LTRIM', notes, '1', '-1')",
    ),
    "the first of the notes counts": (
        "add_to(sums, names, numbers_in(SUMS, text, at))",
        "sums[names] = sums[names] or numbers_in(SUMS, text, at)",
    ),
    "the first layers of the notes count": (
        "add_to(layers, names, numbers_in(LAYERS, text, at + SUMS_BYTES))",
        "layers[names] = layers[names] or numbers_in(LAYERS, text, at + SUMS_BYTES)",
    ),
    "layers are not added": ("if layers[names] then", "if false then"),
    "sums hold the last notes": (
        "known and format == SUMS and plus_kept(known, numbers)",
        "known and format == SUMS and struct.pack(SUMS, unpack(numbers))",
    ),
    # Arguments
    "both halves of a call were as active": (
        "local later = half == RESERVED and 8 or 0",
        "local later = 0",
    ),
    "each line is of the first one's scope": (
        "for _ = 1, i do scope, til, who, at",
        "for _ = 1, 1 do scope, til, who, at",
    ),
    "each line has the first one's limits": ("LINE_BYTES * (i - 1) + 1", "1"),
    "only the first line was raised": (
        "known, raised_at = struct.unpack('s', A[RAISED], raised_at) end",
        "known = i == 1 and struct.unpack('s', A[RAISED]) or '' end",
    ),
    # Lifetimes
    "a version begins at 1": (
        "if version > 1 then return version end",
        "do return version end",
    ),
    "a version begins higher than the last one": ("VERSIONS - ms *", "ms *"),
    "a version that jumps is none that began anew": (
        " or seen > 0 and version - seen > CHANGES_MAX",
        "",
    ),
    "the version stays": (
        "if dirty > 0 or has_refused then version = count_change(K[VERSION]) end",
        "",
    ),
    "finished ids live for ever": (
        "call('EXPIRE', K[DONE], DONE_TTL_S)",
        "",
    ),
    "notes live for ever": (
        "if notes == 1 or rows[1].opens or rows[1].lives then",
        "if false then",
    ),
    "sums live for ever": (
        "if #old == 2 and call('HLEN', key) == #names then",
        "if false then",
    ),
    "sessions live for ever": (
        "if row.opens or row.lives then call('EXPIRE', key, SESSION_TTL_S) end",
        "",
    ),
    "sessions in use expire": ("if row.opens or row.lives then", "if row.opens then"),
    "windows live for ever": (
        "else call('EXPIRE', key, int(math.max(0, til - asked) / 1000 + GRACE_S)) end",
        "end",
    ),
    "windows end by the server's clock": (
        "'EXPIRE', key, int(math.max(0, til - asked) / 1000 + GRACE_S)",
        "'EXPIREAT', key, int(til / 1000 + GRACE_S)",
    ),
    "traces live for ever": (
        "'-2'}\n    redis.call('EXPIRE', key, TRACES_TTL_S)",
        "'-2'}",
    ),
}

RELEASE = {
    "a release keeps the tokens": (
        "row[slot], row[slot + 3] = row[slot] - cost, row[slot + 3] - tokens",
        "row[slot] = row[slot] - cost",
    ),
    "a release keeps the step": ("row[7], row[calls] = row[7] - 1, row[calls] - 1", ""),
    "an unconfirmed hold is not released": (
        "if not hold then hold, slot = call('HGET', K[4], id), 3 end",
        "",
    ),
    "a released id is forgotten": (
        "call('HSET', K[5], id, 'r' .. string.sub(rest, 1, 12))",
        "",
    ),
    "a released hold stays due": ("call('ZREM', K[3], id)", ""),
    "released ids live for ever": (
        "call('EXPIRE', K[5], DONE_TTL_S)",
        "",
    ),
}

SWEEP = {
    "an expired hold is given back": (
        "row[3], row[6] = row[3] + cost, row[6] + tokens",
        "",
    ),
    "an expired hold stays held": (
        "row[2], row[5] = row[2] - cost, row[5] - tokens",
        "",
    ),
    "an expired hold stays open": ("call('HDEL', K[2], id)", ""),
    "an expired hold is forgotten": ("call('HSET', K[4], id, hold)", ""),
    "an expired hold is swept again": ("call('ZREM', K[3], id)", ""),
    "a hold expires late": ("'-inf', string", "'-inf', '(' .. string"),
    "a sweep has no bound": (",\n  'LIMIT', '0', ARGV[2])", ")"),
}

ACCOUNT = {
    "raising lowers": ("limit - higher > 0", "limit - higher < 0"),
    "raising keeps the stop": (
        "if string.sub(stop, 1, 15) == 'budget_exceeded' then stop = '' end",
        "",
    ),
    "raising lifts every stop": (
        "if string.sub(stop, 1, 15) == 'budget_exceeded' then stop = '' end",
        "stop = ''",
    ),
    "raising remembers what was told": (
        "raised, alerted = table.concat(limits, ','), ''",
        "raised = table.concat(limits, ',')",
    ),
    "closing does not end": (
        "struct.pack(TIMES, started, last, active, now)",
        "struct.pack(TIMES, started, last, active, -1)",
    ),
    "no audit of raises": ("if raised ~= before or stop ~= was then", "if false then"),
    "an audit of raises that change nothing": (
        "if raised ~= before or stop ~= was then",
        "if true then",
    ),
    "the audit of raises lives for ever": ("call('EXPIRE', K[4], AUDIT_TTL_S)", ""),
    "an account without calls lives for ever": (
        "if not known then call('EXPIRE', K[2], SESSION_TTL_S) end",
        "",
    ),
}

STOPS = {
    "resuming remembers the loop": ("call('DEL', K[5])", ""),
    "resuming lifts no stop": ("call('HDEL', K[2], field)\n", ""),
    "a person's stop overwrites a person's": (
        "if is_told then stop = A[8] end",
        "stop = A[8]",
    ),
    "a person's stop is lifted by a raise": (
        "is_told = string.sub(stop, 1, 6) ~= 'killed'",
        "is_told = stop == ''",
    ),
    "a shorter stop counts": (
        "not known or til ~= '' and (A[5] == '' or A[5] - til > 0)",
        "true",
    ),
    "a repeated stop counts": ("A[5] - til > 0", "A[5] - til >= 0"),
    "a stop without an end ends": ("til ~= '' and (A[5]", "(A[5]"),
    "a stop that is over stays": ("if last and now - last >= 0 then", "if false then"),
    "the list of stops has no bound": ("(known or count < A[7] + 0)", "true"),
    "the list of stops is full too soon": ("count < A[7] + 0", "count < A[7] - 1"),
    "stops live for ever": (
        "if last then call('EXPIRE'",
        "if false then call('EXPIRE'",
    ),
    "stops for good expire": ("else call('PERSIST', K[2]) end", "end"),
    "no audit of stops": ("if is_told then\n", "if false then\n"),
    "an audit of what changed nothing": ("if is_told then\n", "if true then\n"),
    "the audit of stops lives for ever": ("call('EXPIRE', K[3], AUDIT_TTL_S)", ""),
    "a session that is stopped first lives for ever": (
        "if not exists then call('EXPIRE', K[4], SESSION_TTL_S) end",
        "",
    ),
    "a stop leaves the version": (
        "if changed or is_told then count_change(K[1]) end",
        "",
    ),
}

CALL |= {
    "thresholds are told to nobody": (
        "if #crossed > 0 then telling().crossings(crossed, now) end\n\n  call('LTRIM'",
        "call('LTRIM'",
    ),
    "thresholds that a reservation crosses are told to nobody": (
        "if #crossed > 0 then telling().crossings(crossed, now) end\n\n  if not answer",
        "if not answer",
    ),
    "everything is told to everybody": (
        "return kinds and string.find(kinds, kind, 1, true) end",
        "return kinds end",
    ),
    "an alert names the call's session": (
        "who == '' and who_calls or who",
        "who_calls",
    ),
    "each level is told as one": ("label .. ' ' .. limit, '', {", "label, '', {"),
    "each loop is told as one": (
        "' ' .. id, {finding = text}",
        "'', {finding = text}",
    ),
    "a loop and its stop are told": (
        "not wants('loop') or is_stop and wants('stop') then",
        "not wants('loop') then",
    ),
    "a run of repetitions is told at each": (
        "if finding and not told then telling()",
        "if finding then telling()",
    ),
    "a full budget is told to nobody": (
        "elseif final and enforced then telling().limit(where, now, why) end",
        "end",
    ),
    "a full budget is told while calls may wait": (
        "elseif final and enforced then telling()",
        "elseif enforced then telling()",
    ),
    "a full budget is told each time": (
        "if not note_told(row, 'reached ' .. name) then return end",
        "",
    ),
    "that a full budget was told is forgotten": (
        "    row.dirty = true\n    tell(",
        "    tell(",
    ),
    "a stop that refuses is told to nobody": (
        "  telling().budget(",
        "  return not needed and telling().budget(",
    ),
    "an overrun is told to nobody": (
        "  telling().budget(",
        "  return needed or measure ~= COST and telling().budget(",
    ),
    "an overrun of tokens is told to nobody": (
        "  telling().budget(",
        "  return needed or measure ~= TOKENS and telling().budget(",
    ),
    "alerts are added twice": (
        "if redis.call('HGET', all, id) then return false end",
        "",
    ),
}
ACCOUNT |= {
    "a raise is told to nobody": (
        "if raised ~= before and A[9] ~= '' then",
        "if false then",
    ),
}
STOPS |= {
    "alerts live for ever": ("redis.call('EXPIRE', all, OUTBOX_TTL_S)", ""),
    "ages of alerts live for ever": ("redis.call('EXPIRE', ages, OUTBOX_TTL_S)", ""),
    "a person's stop is told to nobody": (
        "if is_told and order == 'stop' and A[10] ~= '' then",
        "if false then",
    ),
    "a person's repeated stop is told": (
        "if is_told and order == 'stop' and A[10] ~= '' then",
        "if order == 'stop' and A[10] ~= '' then",
    ),
}
OUTBOX = {
    "anybody may send": ("state[1] ~= A[4] and is_claimed", "false"),
    "nobody may send after a claim": ("and is_claimed then", "then"),
    "a place is told at any time": (
        "if is_ahead(free, pause) then return {free} end",
        "",
    ),
    "a place need not rest after a digest": ("if A[10] == '0' and", "if false and"),
    "who ends waits for others": ("if A[10] == '0' and", "if"),
    "a message is begun anew": ("if message ~= '' then", "if false then"),
    "what repeats is sent": (
        "if til and is_ahead(til, HELD_MS_MAX) and row",
        "if false and row",
    ),
    "what repeats waits for ever": (
        "if til and is_ahead(til, HELD_MS_MAX) and row",
        "if til and row",
    ),
    "what repeats is held back twice": (" and row[7] == '' then", " then"),
    "one too many is a digest": ("#passing > singles", "#passing >= singles"),
    "a claim is for nobody": ("state[1], state[2] = A[4], A[5]\n", ""),
    "a note changes what is settled": ("if PLACE_OPEN[row[1]] and", "if"),
    "what is delivered is sent again": (
        "if A[5] ~= 'sending' then call('ZREM', due, id) end",
        "",
    ),
    "what failed is not sent again": ("if A[5] ~= 'sending' then", "if true then"),
    "a claim is not given back": (
        "if state[1] == A[4] then state[1]",
        "if false then state[1]",
    ),
    "a claim of another is given back": (
        "if state[1] == A[4] then state[1]",
        "if true then state[1]",
    ),
    "a place need not rest": (
        "if not waits or A[6] - state[3] > 0 then state[3] = A[6] end",
        "",
    ),
    "what a clock ahead wrote lasts": ("and at - now <= longest + CLOCKS_MS", ""),
    "what a clock ahead wrote outlasts others": ("if not waits or A[6]", "if A[6]"),
    "what a clock ahead told waits": (" and row_of(to, found[i])[7] ~= ''", ""),
    "failures are not counted": ("delivered and '0' or int(state[4] + 1)", "'0'"),
    "what is lost is not counted": (
        "if A[5] == 'dead' then state[5] = state[5] + count end",
        "",
    ),
    "what is lost is told again": ("math.max(0, state[5] - A[10])", "state[5]"),
    "nothing is forgotten": (
        "    outbox.forget(id)\n  end\n  local claim_max",
        "  end\n  local claim_max",
    ),
    "what was delivered is retried": ("if row[1] ~= 'delivered' then", "if true then"),
    "a message is not kept together": (
        "if row[1] == 'dead' or row[2] == '' then",
        "if true then",
    ),
    "a retry waits for its place": ("if state[3] - now > 0 then\n", "if false then\n"),
    "the oldest are read first": ("ZREVRANGE", "ZRANGE"),
    "what came of alerts lives for ever": (
        "A[11], A[13]\n  call('EXPIRE', to, OUTBOX_TTL_S)",
        "A[11], A[13]",
    ),
    "places live for ever": (
        "redis.call('EXPIRE', places, OUTBOX_TTL_S)",
        "",
    ),
    "what repeats is known for ever": (", A[12], 'PX', A[7])", ", A[12])"),
}

MUTANTS = {
    name: (script, old, new)
    for script, mutations in {
        "call": CALL,
        "release": RELEASE,
        "sweep": SWEEP,
        "account": ACCOUNT,
        "stops": STOPS,
        "outbox": OUTBOX,
    }.items()
    for name, (old, new) in mutations.items()
}


def mutated_script(which: str, old: str, new: str) -> Script:
    """Returns a script with another text in the place of one."""
    source = Script(which).source
    assert source.count(old) == 1, "Name a text that is in the script once"
    return Script(which, source.replace(old, new))
