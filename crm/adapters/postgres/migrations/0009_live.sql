-- What the live socket needs beside segment_transitions: tickets to open it, and progress of jobs.

-- A ticket opens one socket, once, within seconds. Unlogged: no commit waits for the disk, and after
-- a crash or on a standby none is left, so that none can be used twice.
CREATE UNLOGGED TABLE live_tickets (
    digest     bytea PRIMARY KEY,               -- SHA-256: whoever reads the table opens nothing
    key_sha256 bytea NOT NULL,                  -- of the API key that asked for it
    expires_at timestamptz NOT NULL
);
CREATE INDEX live_tickets_expired ON live_tickets (expires_at);

-- How far long work has come, whoever does it: the newest state of each job.
CREATE TABLE job_progress (
    id         text PRIMARY KEY,
    kind       text NOT NULL,                   -- import, training ...
    what       text NOT NULL,                   -- for people; no values of players
    brand      text COLLATE "C",                -- NULL: of no brand
    state      text NOT NULL CHECK (state IN ('running', 'done', 'failed')),
    done       bigint NOT NULL,
    total      bigint,
    unit       text NOT NULL,
    message    text,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()  -- a running job says so every few seconds
) WITH (fillfactor = 50);
CREATE INDEX job_progress_changed ON job_progress (changed_at);
