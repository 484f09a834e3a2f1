-- alerts.lua: what people are told of a call. A part of call.lua; one function makes the
-- others, as in loops.lua.

local function telling()
  local LIMIT_AT = {[COST] = 2, [TOKENS] = 3, [STEPS] = 4, [MODELS] = 5, [TOOLS] = 6, [ACTIVE] = 7}
  local MEASURE = {[COST] = 'max_cost_usd', [TOKENS] = 'max_tokens', [STEPS] = 'max_steps',
    [MODELS] = 'max_model_calls', [TOOLS] = 'max_tool_calls', [ACTIVE] = 'max_wall_time_s'}
  -- Behind whether limits are enforced: kinds, whose call it is, and places.
  local kinds, who_calls, to_places = string.match(A[TELLING], '^.\30(.-)\30(.-)\30(.*)$')
  local function wants(kind) return kinds and string.find(kinds, kind, 1, true) end

  -- Tells about line i. `id` parts what has the same subject, if anything does.
  local function tell(kind, i, now, what, id, fields)
    local scope, _, who = about(i)
    local name, rest = string.match(K[TRACES + i], '^gr:{(.-)}:(.*)$')
    local subject = kind .. ' ' .. name .. '/' .. rest .. ' ' .. what
    local owner = who == '' and who_calls or who
    local session = i <= sessions
    local text = table.concat({kind, int(now), owner, scope, session and '1' or '0',
      fields.measure or '', fields.used or '', fields.limit or '', fields.needed or '',
      fields.threshold or '', fields.reason or '', session and int(rows[i][STEPS]) or '',
      fields.finding or '', '', '', '', subject, to_places}, '\30')
    outbox_of(project, undo).tell(redis.sha1hex(subject .. id), int(now), text)
  end

  local function crossings(crossed, now)
    if not wants('soft') then return end
    for _, found in ipairs(crossed) do
      local limit = ({limits_of(found.i)})[LIMIT_AT[found.slot]]
      limit = limit < 2 ^ 53 and int(limit) or '' -- more is no limit
      tell('soft', found.i, now, found.label .. ' ' .. limit, '', {threshold = found.label,
        measure = MEASURE[found.slot], used = found[2], limit = limit})
    end
  end

  local function budget(i, now, measure, used, allowed, needed)
    if not wants('stop') then return end
    tell('stop', i, now, MEASURE[measure] .. ' ' .. int(allowed), '', {
      measure = MEASURE[measure], used = int(used), limit = int(allowed),
      needed = needed and int(needed), reason = 'budget_exceeded'})
  end

  -- Tells once that a shared account refuses; its row remembers that. A session has one
  -- account beside its own that is no budget.
  local function limit(i, now, why)
    local row, name = rows[i], MEASURE[why[1]]
    if about(i) == about(1) or not wants('limit') then return end
    if not note_told(row, 'reached ' .. name) then return end
    row.dirty = true
    tell('limit', i, now, name .. ' ' .. int(why[3]), '', {measure = name,
      used = int(why[2]), limit = int(why[3]), needed = int(why[4])})
  end

  -- Tells of a loop, unless that it stops the session is told in its place.
  local function loop(now, id, finding, text, is_stop)
    if not wants('loop') or is_stop and wants('stop') then return end
    tell('loop', 1, now, string.match(finding[2], '([^\29]*)$'), ' ' .. id, {finding = text})
  end
  local function loop_stop(now, id, text)
    if not wants('stop') then return end
    tell('stop', 1, now, '', ' ' .. id, {reason = 'loop_detected', finding = text})
  end

  return {crossings = crossings, budget = budget, limit = limit, loop = loop,
    loop_stop = loop_stop}
end

-- Stops, and that they are told.
local function stop_of(reason, now, measure, scope, used, allowed, needed, finding)
  return table.concat({reason, int(now), measure, scope, int(used), int(allowed),
    needed and int(needed) or '', finding or '\31\31\31\31', '', ''}, '\31')
end
local function stop_for_budget(i, now, measure, used, allowed, needed)
  rows[i].stop = stop_of('budget_exceeded', now, measure, about(i), used, allowed, needed)
  telling().budget(i, now, measure, used, allowed, needed)
end
local function stop_for_loop(now, id, text)
  rows[1].stop = stop_of('loop_detected', now, '', about(1), 0, 0, nil, text)
  telling().loop_stop(now, id, text)
end

