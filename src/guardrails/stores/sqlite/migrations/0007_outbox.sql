-- What people are to be told. One row per alert; `content` names no URL.
CREATE TABLE alerts (
    alert_id TEXT PRIMARY KEY,
    project  TEXT NOT NULL,
    at_ms    INTEGER NOT NULL,
    content  TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX alerts_by_time ON alerts (project, at_ms, alert_id);

-- What has become of an alert at each place that it is to go to.
CREATE TABLE deliveries (
    alert_id   TEXT NOT NULL,
    place      TEXT NOT NULL,
    project    TEXT NOT NULL,
    due_ms     INTEGER NOT NULL,
    state      TEXT NOT NULL,
    message_id TEXT,
    attempts   INTEGER NOT NULL,
    at_ms      INTEGER,
    status     INTEGER,
    answer     TEXT NOT NULL,
    PRIMARY KEY (alert_id, place)
) WITHOUT ROWID;
CREATE INDEX deliveries_to_make ON deliveries (project, place, due_ms, alert_id)
    WHERE state IN ('waiting', 'sending');

-- Who sends to a place now, and when the next message may follow.
CREATE TABLE places (
    project  TEXT NOT NULL,
    name     TEXT NOT NULL,
    label    TEXT NOT NULL,
    owner    TEXT,
    until_ms INTEGER NOT NULL,
    due_ms   INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    lost     INTEGER NOT NULL,
    rest_ms  INTEGER NOT NULL,
    PRIMARY KEY (project, name)
) WITHOUT ROWID;

-- Until when an alert waits that repeats a delivered one.
CREATE TABLE calm (
    project  TEXT NOT NULL,
    place    TEXT NOT NULL,
    subject  TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    PRIMARY KEY (project, place, subject)
) WITHOUT ROWID;
