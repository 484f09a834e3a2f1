-- What people have stopped, by a key like those of accounts.
CREATE TABLE stops (
    key        TEXT PRIMARY KEY,
    at_ms      INTEGER NOT NULL,
    until_ms   INTEGER,
    ordered_by TEXT,
    note       TEXT
) WITHOUT ROWID;

-- What people did: stops, resumes and raised limits. The newest of each project.
CREATE TABLE audit (
    number        INTEGER PRIMARY KEY,
    project       TEXT NOT NULL,
    at_ms         INTEGER NOT NULL,
    action        TEXT NOT NULL,
    key           TEXT NOT NULL,
    ordered_by    TEXT,
    note          TEXT,
    until_ms      INTEGER,
    policy        TEXT,
    raised_before TEXT,
    raised_after  TEXT
);
CREATE INDEX audit_by_project ON audit (project, number);
