-- name: add_segment
-- A new segment; its name may be taken (segments_names).
INSERT INTO segments (id, brand, name, kind, version, rule, created_at, changed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: add_version
-- Versions stand for ever, so that a transition can be understood later.
INSERT INTO segment_versions (segment, version, name, rule, made_at) VALUES ($1, $2, $3, $4, $5);

-- name: raise_revision
-- Late in the transaction of every change: its lock is held until the commit, so no number is seen
-- early, and what is read after it holds all changes that have come before.
UPDATE segments_revision SET revision = revision + 1;

-- name: revision
-- Has anything changed since I loaded? One row.
SELECT revision FROM segments_revision;

-- name: active
-- What owners load: all that is live, of one brand or (NULL) of all.
SELECT id, brand, name, version, rule
FROM segments
WHERE archived_at IS NULL AND ($1::text IS NULL OR brand = $1)
ORDER BY id;

-- name: segment
-- One segment with its newest size.
SELECT s.id, s.brand, s.name, s.kind, s.version, s.rule, s.created_at, s.changed_at, s.archived_at,
       z.at, z.version AS size_version, z.players
FROM segments s
LEFT JOIN LATERAL (
    SELECT at, version, players FROM segment_sizes WHERE segment = s.id ORDER BY at DESC LIMIT 1
) z ON true
WHERE s.id = $1;

-- name: page
-- The newest first; the key (created_at, id) never changes, so a page stays right.
SELECT s.id, s.brand, s.name, s.kind, s.version, s.rule, s.created_at, s.changed_at, s.archived_at,
       z.at, z.version AS size_version, z.players
FROM segments s
LEFT JOIN LATERAL (
    SELECT at, version, players FROM segment_sizes WHERE segment = s.id ORDER BY at DESC LIMIT 1
) z ON true
WHERE s.brand = $1 AND (s.archived_at IS NOT NULL) = $2
  AND ($3::timestamptz IS NULL OR (s.created_at, s.id) < ($3, $4))
ORDER BY s.created_at DESC, s.id DESC
LIMIT $5;

-- name: versions
-- The newest first, below a version.
SELECT version, name, rule, made_at
FROM segment_versions
WHERE segment = $1 AND ($2::int IS NULL OR version < $2)
ORDER BY version DESC
LIMIT $3;

-- name: lock
-- One change after the other: whoever comes second sees the version that the first has made.
SELECT version FROM segments WHERE id = $1 FOR UPDATE;

-- name: change
-- The newest version stands in the segment's own row too.
UPDATE segments SET version = $2, name = $3, rule = $4, changed_at = $5 WHERE id = $1;

-- name: archive
-- Nobody enters or leaves any more; its versions and sizes stay.
UPDATE segments SET archived_at = $2, changed_at = $2 WHERE id = $1;

-- name: add_players
-- Those that the list lacks; the count of new rows is what was added.
INSERT INTO segment_players (segment, shard, player_id)
SELECT $1, shard, player_id FROM unnest($2::smallint[], $3::text[]) AS given (shard, player_id)
ON CONFLICT DO NOTHING;

-- name: keep_players
-- A list is replaced by taking out whom the new one lacks: those who stay are not touched.
DELETE FROM segment_players p
WHERE p.segment = $1 AND NOT EXISTS (
    SELECT FROM unnest($2::text[]) AS given (player_id) WHERE given.player_id = p.player_id
);

-- name: count_players
-- How many a list holds, those unknown to the shards too.
SELECT count(*) FROM segment_players WHERE segment = $1;

-- name: players
-- A page of a list, by the key itself: who comes or goes meanwhile moves nobody else.
SELECT player_id
FROM segment_players
WHERE segment = $1 AND player_id > $2
ORDER BY player_id
LIMIT $3;

-- name: players_of_shards
-- What an owner loads of a list: its own shards.
SELECT shard, player_id FROM segment_players WHERE segment = $1 AND shard = ANY ($2::smallint[]);

-- name: holds_player
-- Is this one player in the list?
SELECT EXISTS (SELECT FROM segment_players WHERE segment = $1 AND shard = $2 AND player_id = $3);

-- name: add_size
-- A point of the curve; two measurements of one moment are one.
INSERT INTO segment_sizes (segment, at, version, players) VALUES ($1, $2, $3, $4)
ON CONFLICT (segment, at) DO UPDATE SET version = excluded.version, players = excluded.players;

-- name: sizes
-- The curve, the newest point first, before a moment.
SELECT at, version, players
FROM segment_sizes
WHERE segment = $1 AND ($2::timestamptz IS NULL OR at < $2)
ORDER BY at DESC
LIMIT $3;

-- name: unmeasured
-- Live segments whose newest size is older than a moment, or that have none.
SELECT s.id, s.brand, s.name, s.version, s.rule
FROM segments s
WHERE s.archived_at IS NULL
  AND NOT EXISTS (SELECT FROM segment_sizes z WHERE z.segment = s.id AND z.at > $1)
ORDER BY s.id;
