-- name: in_lake
-- Why: where the next file begins.
SELECT in_lake_xact::text::bigint AS xact, in_lake_id AS id FROM transitions_kept

-- name: lacking
-- Why: the next that the lake lacks, up to the first that is not old yet: what leaves the table is
-- always its beginning, so that one place says what a cursor has missed. Below the oldest open
-- transaction nothing comes late.
WITH next AS MATERIALIZED (
    SELECT * FROM segment_transitions
    WHERE (xact, id) > ($1::text::xid8, $2::bigint) AND xact < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xact, id LIMIT $4
), young AS (
    SELECT xact, id FROM next WHERE made_at >= $3 ORDER BY xact, id LIMIT 1
)
SELECT n.xact::text::bigint AS xact, n.id, n.brand, n.segment, n.version, n.player_id, n.entered,
       n.shard, n.seq, n.at, n.made_at
FROM next n
WHERE NOT EXISTS (SELECT FROM young) OR (n.xact, n.id) < (SELECT xact, id FROM young)
ORDER BY n.xact, n.id

-- name: advance_lake
-- Why: of two writers one lists its file: the row's lock lets one be first, and moves the place.
UPDATE transitions_kept SET in_lake_xact = $3::text::xid8, in_lake_id = $4
WHERE (in_lake_xact, in_lake_id) = ($1::text::xid8, $2::bigint)
RETURNING in_lake_id

-- name: add_file
-- Why: listed in the transaction that moves the place.
INSERT INTO transition_files (name, last_xact, last_id, transitions, first_at, last_at)
VALUES ($1, $2::text::xid8, $3, $4, $5, $6)

-- name: files
-- Why: only these are believed; a killed writer leaves others.
SELECT name FROM transition_files ORDER BY last_xact, last_id

-- name: drop_old
-- Why: a small piece of the table's beginning, and what cursors may no longer ask for, at once; only
-- what stands in the lake.
WITH old AS MATERIALIZED (
    SELECT t.xact, t.id, t.made_at FROM segment_transitions t
    WHERE (t.xact, t.id) <= (SELECT in_lake_xact, in_lake_id FROM transitions_kept)
    ORDER BY t.xact, t.id LIMIT $2
), young AS (
    SELECT xact, id FROM old WHERE made_at >= $1 ORDER BY xact, id LIMIT 1
), gone AS (
    DELETE FROM segment_transitions t USING old o
    WHERE (t.xact, t.id) = (o.xact, o.id)
      AND (NOT EXISTS (SELECT FROM young) OR (o.xact, o.id) < (SELECT xact, id FROM young))
    RETURNING t.xact, t.id
), last AS (
    SELECT xact, id FROM gone ORDER BY xact DESC, id DESC LIMIT 1
), noted AS (
    UPDATE transitions_kept k SET dropped_xact = last.xact, dropped_id = last.id
    FROM last WHERE (k.dropped_xact, k.dropped_id) < (last.xact, last.id)
)
SELECT count(*) FROM gone

-- name: drop_clocks
-- Why: a clock is needed while a shard names its owner. One that has moved lately may be of an owner
-- that is just claiming its first shards: this statement's snapshot need not show that yet.
DELETE FROM segment_clocks c
WHERE c.clock_us < $1 AND NOT EXISTS (SELECT FROM virtual_shards v WHERE v.owner = c.owner)
