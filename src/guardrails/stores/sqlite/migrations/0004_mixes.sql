-- Parts of tokens and costs, in each cell.
ALTER TABLE rollups ADD COLUMN cache_read_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN failed_nano_usd INTEGER NOT NULL DEFAULT 0;

-- One cell for all names of an event together, from the events of earlier versions.
INSERT INTO rollups (
    project_id, hour, dimension, name,
    model_nano_usd, tool_nano_usd, model_calls, tool_calls,
    input_tokens, output_tokens,
    unpriced_calls, estimated_calls, failed_calls,
    latency_ms, bytes_in, bytes_out,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, failed_nano_usd
)
SELECT
    project_id, time_ms / 3600000, 'mix',
    json_array(
        nullif(session_id, ''), agent, coalesce(json_extract(agent_path, '$[0]'), agent),
        customer_id, user_id, feature, prompt_version,
        kind, provider, model, server, tool,
        CASE WHEN status <> 'ok' THEN 'error' END, NULL
    ) AS mix,
    sum(CASE kind WHEN 'model' THEN coalesce(cost_nano_usd, 0) ELSE 0 END),
    sum(CASE kind WHEN 'tool' THEN coalesce(cost_nano_usd, 0) ELSE 0 END),
    sum(kind = 'model'), sum(kind = 'tool'),
    sum(coalesce(json_extract(usage, '$.input_tokens'), 0)),
    sum(coalesce(json_extract(usage, '$.output_tokens'), 0)),
    sum(price_status = 'unpriced'), sum(price_status = 'estimated'),
    sum(status <> 'ok'),
    sum(coalesce(latency_ms, 0)),
    sum(coalesce(bytes_in, 0)), sum(coalesce(bytes_out, 0)),
    sum(coalesce(json_extract(usage, '$.cache_read_tokens'), 0)),
    sum(coalesce(json_extract(usage, '$.cache_write_tokens'), 0)),
    sum(coalesce(json_extract(usage, '$.reasoning_tokens'), 0)),
    sum(CASE status WHEN 'ok' THEN 0 ELSE coalesce(cost_nano_usd, 0) END)
FROM events
GROUP BY project_id, time_ms / 3600000, mix;

-- The cells of one dimension were there; what they did not sum up yet is in the mixes.
INSERT INTO rollups (
    project_id, hour, dimension, name,
    model_nano_usd, tool_nano_usd, model_calls, tool_calls,
    input_tokens, output_tokens, unpriced_calls, estimated_calls, failed_calls,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, failed_nano_usd
)
SELECT
    project_id, hour, dimension, coalesce(found, ''), 0, 0, 0, 0, 0, 0, 0, 0, 0,
    sum(cache_read_tokens), sum(cache_write_tokens),
    sum(reasoning_tokens), sum(failed_nano_usd)
FROM (
    SELECT
        mixes.*, dimensions.column1 AS dimension,
        CASE dimensions.column1
            WHEN 'project_id' THEN project_id
            WHEN 'tool' THEN
                coalesce(json_extract(name, '$[10]') || '/', '')
                || json_extract(name, '$[11]')
            ELSE json_extract(name, dimensions.column2)
        END AS found
    FROM (
        SELECT
            project_id, hour, name,
            cache_read_tokens, cache_write_tokens, reasoning_tokens, failed_nano_usd
        FROM rollups WHERE dimension = 'mix'
    ) AS mixes
    JOIN (
        VALUES
            ('project_id', NULL), ('session_id', '$[0]'), ('agent', '$[1]'),
            ('customer_id', '$[3]'), ('user_id', '$[4]'), ('feature', '$[5]'),
            ('prompt_version', '$[6]'), ('model', '$[9]'), ('tool', NULL)
    ) AS dimensions
    WHERE dimensions.column1 NOT IN ('model', 'tool')
        OR json_extract(name, '$[7]') = dimensions.column1
)
GROUP BY project_id, hour, dimension, coalesce(found, '')
ON CONFLICT (project_id, hour, dimension, name) DO UPDATE SET
    cache_read_tokens = excluded.cache_read_tokens,
    cache_write_tokens = excluded.cache_write_tokens,
    reasoning_tokens = excluded.reasoning_tokens,
    failed_nano_usd = excluded.failed_nano_usd;
