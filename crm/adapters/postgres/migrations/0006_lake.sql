-- The lake's manifest: the bytes lie in the lake, and only what stands here is believed.

CREATE TABLE lake_shards (
    shard smallint PRIMARY KEY CHECK (shard BETWEEN 0 AND 255),
    seq   bigint NOT NULL DEFAULT 0             -- the files hold every event up to it, once
) WITH (fillfactor = 50);
INSERT INTO lake_shards (shard) SELECT generate_series(0, 255);

-- The files of a shard follow each other without a gap.
CREATE TABLE lake_files (
    shard          smallint NOT NULL,
    first_seq      bigint NOT NULL,
    last_seq       bigint NOT NULL,
    name           text NOT NULL,
    size           bigint NOT NULL,
    schema_version smallint NOT NULL,
    written_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shard, first_seq),
    CHECK (first_seq <= last_seq)
);

-- Files that stand for nothing any more; somebody may still be reading them for a while.
CREATE TABLE lake_replaced (
    name        text PRIMARY KEY,
    replaced_at timestamptz NOT NULL DEFAULT now()
);

-- Sessions of days before this one stand in the lake alone, but for those that came late.
CREATE TABLE sessions_dropped (before date NOT NULL);

-- Batch features, each a folder of the lake; listing one makes it its brand's current.
CREATE TABLE feature_builds (
    folder   text PRIMARY KEY,
    brand    text COLLATE "C" NOT NULL,
    as_of    timestamptz NOT NULL,
    known_by timestamptz NOT NULL,
    players  bigint NOT NULL,
    made_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX feature_builds_newest ON feature_builds (brand, made_at DESC);
