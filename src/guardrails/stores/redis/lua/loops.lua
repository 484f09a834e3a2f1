-- loops.lua: repeated calls of a session's tools. It stands before call.lua, and is no
-- script of its own.
--
-- `find_loop` of core/loops.py and what is beside it. One function makes the others:
-- most calls need none, and making those of all scripts took a tenth of a call's time.
--
-- A trace is the tool, the digests of its arguments and of its result, the id and the
-- cost of the call. The result of a call that failed begins with '!', so that it is
-- never that of one that did not; '' is not known; '-' is a call that was refused,
-- because it would have gone on with a loop. Those are behind all others.
local CYCLE_PERIOD_MAX, REFUSED, TRACES_MAX, TRACES_TTL_S = 8, '-', 64, '2592000'

-- Of the traces in `key`. A rule says how many calls are a loop of each kind, how many of
-- the last ones are looked at, and how often one that goes on is only refused.
local LOOP_RULE = '^(%d+),(%d+),(%d+),(%d+),(%d+),(%d+)$'
local function loops_of(key, undo, rule)
  local repeats, of_cycles, of_errors, of_polling, within, refusals_max =
    string.match(rule, LOOP_RULE)
  local function trace_of(text)
    return {string.match(text, '^(.-)\31(.-)\31(.-)\31(.-)\31(.*)$')}
  end
  local function is_like(a, b) return a[1] == b[1] and a[2] == b[2] end
  local function brings_the_same(a, b)
    return a[3] ~= '' and a[3] == b[3] and is_like(a, b)
  end
  local function fails_the_same(a, b)
    return string.sub(a[3], 1, 1) == '!' and a[3] == b[3] and a[1] == b[1]
  end

  local function completed(list)
    local traces = {}
    for i, text in ipairs(list) do
      local trace = trace_of(text)
      if trace[3] == REFUSED then break end
      traces[i] = trace
    end
    return traces
  end

  -- {kind, tools, arguments, calls, cost}: what is told of a loop; and its period.
  local function find(traces)
    local n = #traces
    local seen = math.min(n, within + 0)
    if n == 0 then return end
    -- How many calls at the end repeat those of `period` calls before them.
    local function repeating(is_same, period)
      local calls = period
      while calls < seen and is_same(traces[n - calls + period], traces[n - calls]) do
        calls = calls + 1
      end
      return calls
    end
    local function finding(kind, calls, period)
      local cost, tools = 0, {}
      for i = n - calls + 1, n do cost = cost + (tonumber(traces[i][5]) or 0) end
      for i = n - period + 1, n do tools[#tools + 1] = traces[i][1] end
      return {kind, table.concat(tools, '\29'), traces[n][2], string.format('%.0f', calls),
        string.format('%.0f', cost), period = period}
    end
    local identical = repeating(brings_the_same, 1)
    if identical >= repeats + 0 then return finding('identical', identical, 1) end
    -- A round of one call is none: its results may alternate while it polls.
    local same_call = repeating(is_like, 1)
    for period = math.max(2, same_call + 1), CYCLE_PERIOD_MAX do
      local calls = repeating(brings_the_same, period)
      if calls >= period * of_cycles then return finding('cycle', calls, period) end
    end
    local calls = repeating(fails_the_same, 1)
    if calls >= of_errors + 0 then return finding('repeated_error', calls, 1) end
    if same_call >= of_polling + 0 then return finding('polling', same_call, 1) end
  end

  -- Whether what was found one call earlier is the same run of repetitions. Two runs of
  -- equal rounds that overlap by a round are one.
  local function is_one_run(now, earlier)
    if not earlier or now[1] ~= earlier[1] then return false end
    if now[1] == 'cycle' then return now.period == earlier.period end
    return now[2] == earlier[2] and (now[1] == 'repeated_error' or now[3] == earlier[3])
  end

  -- Any command may be refused, and is taken back then; see call.lua.
  local function remember(list, kept, trace)
    redis.call('LTRIM', key, '-' .. (TRACES_MAX - 1), '-1')
    redis.call('RPUSH', key, trace)
    undo[#undo + 1] = {'LTRIM', key, '0', '-2'}
    redis.call('EXPIRE', key, TRACES_TTL_S)
    if #kept == #list then return end
    list[#list + 1], kept[#kept + 1] = trace, trace
    redis.call('DEL', key)
    undo[#undo + 1] = {'EXPIRE', key, TRACES_TTL_S}
    undo[#undo + 1] = {'RPUSH', key, unpack(list)}
    undo[#undo + 1] = {'DEL', key}
    redis.call('RPUSH', key, unpack(kept))
    redis.call('EXPIRE', key, TRACES_TTL_S)
    list[#list], kept[#kept] = nil, nil
  end

  -- Remembers a tool call that ended. The same call id replaces its earlier trace: a
  -- framework that runs a tool again after an interrupt repeats itself. What was refused
  -- before it counts no longer.
  local function learn(trace)
    local list, kept, id = redis.call('LRANGE', key, '0', '-1'), {}, trace_of(trace)[4]
    for _, text in ipairs(list) do
      local known = trace_of(text)
      if known[3] ~= REFUSED and (id == '' or known[4] ~= id) then kept[#kept + 1] = text end
    end
    remember(list, kept, trace)
    local earlier = find(completed(list))
    kept[#kept + 1] = trace
    local finding = find(completed(kept))
    return finding, finding and is_one_run(finding, earlier)
  end

  -- The loop that a call would go on with, if any. Of a cycle that is any of its calls:
  -- an agent that leaves one out is not out of it.
  local function continued(trace)
    local traces, next_one = completed(redis.call('LRANGE', key, '0', '-1')), trace_of(trace)
    local finding = find(traces)
    if not finding then return end
    if finding[1] == 'repeated_error' then
      return next_one[1] == finding[2] and finding or nil
    end
    for i = #traces - finding.period + 1, #traces do
      if is_like(next_one, traces[i]) then return finding end
    end
  end

  -- Remembers a tool call that is refused, and returns whether too many are by now. The
  -- same call counts once, however often it asks.
  local function count_refusal(trace)
    local list, kept, id = redis.call('LRANGE', key, '0', '-1'), {}, trace_of(trace)[4]
    local refusals = 1
    for _, text in ipairs(list) do
      local known = trace_of(text)
      if known[3] ~= REFUSED then kept[#kept + 1] = text
      elseif known[4] ~= id then kept[#kept + 1], refusals = text, refusals + 1 end
    end
    remember(list, kept, trace)
    return refusals > refusals_max + 0
  end

  return {learn = learn, continued = continued, count_refusal = count_refusal}
end

