-- Saved segments: pages of segments and of a list's players, and answers to requests sent again.
CREATE INDEX segments_page ON segments (brand, created_at, id);
CREATE INDEX segment_players_page ON segment_players (segment, player_id);

-- The answer of a change that came with an Idempotency-Key, written with the change itself.
CREATE TABLE idempotency_keys (
    caller  bytea NOT NULL,                     -- SHA-256 of the API key: keys are each caller's own
    key     text COLLATE "C" NOT NULL,
    request bytea NOT NULL,                     -- SHA-256 of what was asked
    answer  bytea,
    made_at timestamptz NOT NULL,
    PRIMARY KEY (caller, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (made_at);
