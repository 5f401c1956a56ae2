-- The log, by (shard, seq): who owns a virtual shard, which event ids are taken, and the events.

CREATE TABLE virtual_shards (
    shard          smallint PRIMARY KEY CHECK (shard BETWEEN 0 AND 255),
    epoch          bigint NOT NULL DEFAULT 0,   -- raised by each new owner: the fence
    seq            bigint NOT NULL DEFAULT 0,   -- the last event; gap-free
    owner          text,                        -- name of the owner that holds `epoch`
    stale_refusals bigint NOT NULL DEFAULT 0    -- writes refused because their epoch was old
) WITH (fillfactor = 20);                       -- updated by every commit: leave room for HOT updates
INSERT INTO virtual_shards (shard) SELECT generate_series(0, 255);

-- Never dropped: the same id is a duplicate for ever. Text in "C" so that its order is the writers'.
CREATE TABLE event_ids (
    brand       text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    shard       smallint NOT NULL,
    seq         bigint NOT NULL,
    fingerprint bytea NOT NULL,                 -- keyed digest of all that the client sent
    PRIMARY KEY (brand, event_id)
) PARTITION BY HASH (brand, event_id);
DO $$
BEGIN
    FOR i IN 0..15 LOOP
        EXECUTE format(
            'CREATE TABLE event_ids_%s PARTITION OF event_ids FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
            lpad(i::text, 2, '0'), i);
    END LOOP;
END $$;

-- Every event but sessions, by month of occurred_at; partitions are made on demand.
CREATE TABLE user_transactions (
    shard        smallint NOT NULL,
    seq          bigint NOT NULL,
    brand        text COLLATE "C" NOT NULL,
    player_id    text COLLATE "C" NOT NULL,
    event_id     text COLLATE "C" NOT NULL,
    type         text COLLATE "C" NOT NULL,
    occurred_at  timestamptz NOT NULL,
    received_at  timestamptz NOT NULL,
    known_at     timestamptz NOT NULL,
    local_day    date NOT NULL,                 -- in the brand's zone, computed once at reception
    amount_minor bigint,
    currency     text COLLATE "C",
    properties   jsonb NOT NULL,
    backfill     boolean NOT NULL
) PARTITION BY RANGE (occurred_at);
CREATE INDEX user_transactions_log ON user_transactions (shard, seq);

-- Sessions, by day; those older than their retention share the default partition.
CREATE TABLE user_sessions (LIKE user_transactions) PARTITION BY RANGE (occurred_at);
CREATE INDEX user_sessions_log ON user_sessions (shard, seq);
CREATE TABLE user_sessions_old PARTITION OF user_sessions DEFAULT;

-- Personal fields that the door cut out of events, sealed; the latest value of each.
CREATE TABLE personal_fields (
    brand       text COLLATE "C" NOT NULL,
    player_id   text COLLATE "C" NOT NULL,
    field       text COLLATE "C" NOT NULL,
    sealed      bytea NOT NULL,
    occurred_at timestamptz NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    PRIMARY KEY (brand, player_id, field)
);

-- Bytes are in the lake; only what stands here is believed.
CREATE TABLE shard_snapshots (
    shard    smallint NOT NULL,
    epoch    bigint NOT NULL,
    seq      bigint NOT NULL,
    name     text NOT NULL,
    size     bigint NOT NULL,
    taken_at timestamptz NOT NULL,
    PRIMARY KEY (shard, seq, epoch)
);

-- Refused events, sealed whole; card numbers are not kept even so.
CREATE TABLE quarantine (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL,
    source      text NOT NULL,
    code        text NOT NULL,
    message     text NOT NULL,
    digest      bytea NOT NULL UNIQUE,          -- keyed, of code and text: sent again it is kept once
    sealed      bytea
);

CREATE TABLE api_keys (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    key_sha256 bytea NOT NULL UNIQUE,           -- keys are 256 random bits: a plain digest suffices
    created_at timestamptz NOT NULL DEFAULT now()
);
