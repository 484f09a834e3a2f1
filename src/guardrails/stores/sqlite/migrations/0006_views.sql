-- For other programs: what they may rely on, in words and units for people. Columns
-- are added at the end; none is taken away or changes its meaning.
CREATE VIEW guardrails_events AS
SELECT
    event_id,
    strftime('%Y-%m-%dT%H:%M:%S', time_ms / 1000, 'unixepoch')
        || printf('.%03dZ', time_ms % 1000) AS time,
    project_id,
    customer_id,
    user_id,
    feature,
    agent,
    coalesce(agent_path, CASE WHEN agent IS NULL THEN '[]' ELSE json_array(agent) END)
        AS agent_path,
    nullif(session_id, '') AS session_id,
    agent_run_id,
    prompt_version,
    kind,
    provider,
    model,
    server,
    tool,
    status,
    error_type,
    latency_ms,
    bytes_in,
    bytes_out,
    CASE WHEN usage IS NOT NULL
        THEN coalesce(json_extract(usage, '$.input_tokens'), 0) END AS input_tokens,
    CASE WHEN usage IS NOT NULL
        THEN coalesce(json_extract(usage, '$.cache_read_tokens'), 0)
        END AS cache_read_tokens,
    CASE WHEN usage IS NOT NULL
        THEN coalesce(json_extract(usage, '$.cache_write_tokens'), 0)
        END AS cache_write_tokens,
    CASE WHEN usage IS NOT NULL
        THEN coalesce(json_extract(usage, '$.output_tokens'), 0) END AS output_tokens,
    CASE WHEN usage IS NOT NULL
        THEN coalesce(json_extract(usage, '$.reasoning_tokens'), 0)
        END AS reasoning_tokens,
    -- Text, because a REAL drifts.
    CASE WHEN cost_nano_usd IS NOT NULL THEN printf(
        '%d.%09d', cost_nano_usd / 1000000000, cost_nano_usd % 1000000000
    ) END AS cost_usd,
    cost_nano_usd,
    price_status,
    price_source,
    coalesce((
        SELECT json_group_object(
            json_extract(pair.value, '$[0]'), json_extract(pair.value, '$[1]')
        )
        FROM json_each(events.tags) AS pair
    ), '{}') AS tags,
    price_status = 'estimated' AS estimated
FROM events;

CREATE VIEW guardrails_spend_hourly AS
SELECT
    project_id,
    strftime('%Y-%m-%dT%H:00:00Z', hour * 3600, 'unixepoch') AS hour,
    dimension,
    nullif(name, '') AS name,
    printf(
        '%d.%09d',
        (model_nano_usd + tool_nano_usd) / 1000000000,
        (model_nano_usd + tool_nano_usd) % 1000000000
    ) AS cost_usd,
    model_nano_usd + tool_nano_usd AS cost_nano_usd,
    model_nano_usd,
    tool_nano_usd,
    model_calls,
    tool_calls,
    input_tokens,
    output_tokens,
    unpriced_calls,
    estimated_calls,
    failed_calls,
    latency_ms
FROM rollups
WHERE dimension IN (
    'project_id', 'agent', 'customer_id', 'user_id', 'feature', 'prompt_version',
    'session_id', 'model', 'tool'
);
