-- Which calls were made again, and which ones a limit would have refused.
ALTER TABLE events ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
ALTER TABLE events ADD COLUMN is_repeat INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN refused_by TEXT;
