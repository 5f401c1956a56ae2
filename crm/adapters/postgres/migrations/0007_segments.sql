-- Saved segments; their versions stand for ever, so that a transition can be understood later.
CREATE TABLE segments (
    id          text COLLATE "C" PRIMARY KEY,
    brand       text COLLATE "C" NOT NULL,
    name        text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('rule', 'list')),
    version     int NOT NULL,
    rule        text,                           -- of the newest version, in its text form; NULL: a list
    created_at  timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL,
    archived_at timestamptz,                    -- nobody enters or leaves any more
    CHECK ((kind = 'rule') = (rule IS NOT NULL))
);
CREATE UNIQUE INDEX segments_names ON segments (brand, name) WHERE archived_at IS NULL;

CREATE TABLE segment_versions (
    segment text COLLATE "C" NOT NULL REFERENCES segments,
    version int NOT NULL,
    name    text NOT NULL,
    rule    text,
    made_at timestamptz NOT NULL,
    PRIMARY KEY (segment, version)
);

-- The players of lists; by shard, so that an owner reads its own.
CREATE TABLE segment_players (
    segment   text COLLATE "C" NOT NULL REFERENCES segments,
    shard     smallint NOT NULL,
    player_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (segment, shard, player_id)
);

-- How large a segment was; written now and then, for its curve.
CREATE TABLE segment_sizes (
    segment text COLLATE "C" NOT NULL REFERENCES segments,
    at      timestamptz NOT NULL,
    version int NOT NULL,
    players bigint NOT NULL,
    PRIMARY KEY (segment, at)
);

-- Raised by the transaction of every change to a segment: owners look at it, and load what is new.
CREATE TABLE segments_revision (revision bigint NOT NULL);
INSERT INTO segments_revision VALUES (0);

-- Who entered and left, written with the event that caused it, or when the clock did.
CREATE TABLE segment_transitions (
    id        bigint GENERATED ALWAYS AS IDENTITY,
    xact      xid8 NOT NULL DEFAULT pg_current_xact_id(),  -- with `id` an order that readers can trust
    shard     smallint NOT NULL,
    brand     text COLLATE "C" NOT NULL,
    segment   text COLLATE "C" NOT NULL,
    version   int NOT NULL,
    player_id text COLLATE "C" NOT NULL,
    entered   boolean NOT NULL,
    seq       bigint,                           -- of the event that caused it; NULL: the clock
    at        timestamptz NOT NULL,             -- when it became true: of the event, or the boundary
    made_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX segment_transitions_once
    ON segment_transitions (segment, version, player_id, at, seq) NULLS NOT DISTINCT;
CREATE INDEX segment_transitions_order ON segment_transitions (xact, id);

-- Up to which moment all transitions of an owner's shards have been written.
CREATE TABLE segment_clocks (
    owner    text PRIMARY KEY,
    clock_us bigint NOT NULL
) WITH (fillfactor = 20);                       -- updated by nearly every commit
-- A shard that its new owner has claimed but not taken in yet stands where its former owner stood.
ALTER TABLE virtual_shards ADD COLUMN clock_us bigint;
