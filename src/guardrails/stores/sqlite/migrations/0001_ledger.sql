-- Amounts are integers: nano-USD, tokens, milliseconds since 1970 (UTC).
-- Structured values that only the ledger reads are JSON.

CREATE TABLE accounts (
    key                  TEXT PRIMARY KEY,
    posted_nano_usd      INTEGER NOT NULL,
    held_nano_usd        INTEGER NOT NULL,
    unconfirmed_nano_usd INTEGER NOT NULL,
    posted_tokens        INTEGER NOT NULL,
    held_tokens          INTEGER NOT NULL,
    unconfirmed_tokens   INTEGER NOT NULL,
    steps                INTEGER NOT NULL,
    model_calls          INTEGER NOT NULL,
    tool_calls           INTEGER NOT NULL,
    alerted              TEXT,
    raised               TEXT,
    stop                 TEXT,
    expires_at_ms        INTEGER,
    -- Of sessions only.
    started_at_ms        INTEGER,
    last_active_at_ms    INTEGER,
    active_ms            INTEGER,
    ended_at_ms          INTEGER
) WITHOUT ROWID;

-- Whose session it is: written once, when it opens.
CREATE TABLE sessions (
    key         TEXT PRIMARY KEY,
    project_id  TEXT NOT NULL,
    session_id  TEXT,
    attribution TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_by_id ON sessions (project_id, session_id);

-- The last tool calls of a session, apart because only tool calls need them.
CREATE TABLE traces (
    key    TEXT PRIMARY KEY,
    traces TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE holds (
    hold_id       TEXT PRIMARY KEY,
    state         TEXT NOT NULL,
    kind          TEXT NOT NULL,
    accounts      TEXT NOT NULL,
    cost_nano_usd INTEGER NOT NULL,
    tokens        INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX holds_by_expiry ON holds (expires_at_ms);

-- Clustered by session: its detail is one range, and a running session writes
-- to the same pages.
CREATE TABLE events (
    project_id        TEXT NOT NULL,
    session_id        TEXT NOT NULL,
    event_id          TEXT NOT NULL,
    time_ms           INTEGER NOT NULL,
    kind              TEXT NOT NULL,
    agent             TEXT,
    agent_path        TEXT,
    customer_id       TEXT,
    user_id           TEXT,
    feature           TEXT,
    agent_run_id      TEXT,
    prompt_version    TEXT,
    tags              TEXT,
    provider          TEXT,
    model             TEXT,
    server            TEXT,
    tool              TEXT,
    status            TEXT NOT NULL,
    error_type        TEXT,
    latency_ms        INTEGER,
    bytes_in          INTEGER,
    bytes_out         INTEGER,
    usage             TEXT,
    cost_nano_usd     INTEGER,
    price_status      TEXT NOT NULL,
    price_source      TEXT,
    reserved_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (project_id, session_id, event_id)
) WITHOUT ROWID;

-- By hour first: a settle writes its cells to neighbouring pages. A name of '' is
-- what was not attributed.
CREATE TABLE rollups (
    project_id      TEXT NOT NULL,
    hour            INTEGER NOT NULL,
    dimension       TEXT NOT NULL,
    name            TEXT NOT NULL,
    model_nano_usd  INTEGER NOT NULL,
    tool_nano_usd   INTEGER NOT NULL,
    model_calls     INTEGER NOT NULL,
    tool_calls      INTEGER NOT NULL,
    input_tokens    INTEGER NOT NULL,
    output_tokens   INTEGER NOT NULL,
    unpriced_calls  INTEGER NOT NULL,
    estimated_calls INTEGER NOT NULL,
    failed_calls    INTEGER NOT NULL,
    PRIMARY KEY (project_id, hour, dimension, name)
) WITHOUT ROWID;

-- Random keys, made once. Without them a fingerprint cannot be guessed back.
CREATE TABLE secrets (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
);
