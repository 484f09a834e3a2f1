-- How long calls took and how much they moved, in each cell.
ALTER TABLE rollups ADD COLUMN latency_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN bytes_in INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN bytes_out INTEGER NOT NULL DEFAULT 0;
