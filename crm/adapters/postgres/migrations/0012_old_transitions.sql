-- Old transitions leave the table in its order, once they stand in the lake.

-- Both are places in the order (xact, id) that readers trust.
CREATE TABLE transitions_kept (
    in_lake_xact xid8 NOT NULL,                 -- the lake holds all up to here
    in_lake_id   bigint NOT NULL,
    dropped_xact xid8 NOT NULL,                 -- the last one that the table lacks: never before the lake has it
    dropped_id   bigint NOT NULL,
    CHECK ((dropped_xact, dropped_id) <= (in_lake_xact, in_lake_id))
);
INSERT INTO transitions_kept VALUES ('0', 0, '0', 0);

-- Files of the lake that follow each other without a gap; only what stands here is believed.
CREATE TABLE transition_files (
    name        text PRIMARY KEY,
    last_xact   xid8 NOT NULL,
    last_id     bigint NOT NULL,
    transitions bigint NOT NULL,
    first_at    timestamptz NOT NULL,           -- when its first and last were written
    last_at     timestamptz NOT NULL,
    UNIQUE (last_xact, last_id)
);
