-- name: advance_shards
-- Why: the fence, and the first statement of every write. Takes sequence numbers under the epochs,
-- locking the shards' rows in shard order; a row that does not come back has another owner now.
UPDATE virtual_shards v SET seq = v.seq + held.taken
FROM (SELECT s.shard, w.epoch, w.taken FROM virtual_shards s
      JOIN unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS w (shard, epoch, taken)
        ON w.shard = s.shard
      ORDER BY s.shard FOR UPDATE OF s) AS held
WHERE v.shard = held.shard AND v.epoch = held.epoch
RETURNING v.shard, v.seq

-- name: known_ids
-- Why: tells new events from duplicates and conflicts.
SELECT i.brand, i.event_id, i.fingerprint
FROM unnest($1::text[], $2::text[]) AS wanted (brand, event_id)
JOIN event_ids i ON i.brand = wanted.brand AND i.event_id = wanted.event_id

-- name: keep_personal_fields
-- Why: the latest value of each personal field wins, in any order of arrival.
INSERT INTO personal_fields AS kept (brand, player_id, field, sealed, occurred_at, event_id)
SELECT DISTINCT ON (brand, player_id, field) brand, player_id, field, sealed, occurred_at, event_id
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[], $6::text[])
     AS cut (brand, player_id, field, sealed, occurred_at, event_id)
ORDER BY brand, player_id, field, occurred_at DESC, event_id DESC
ON CONFLICT (brand, player_id, field) DO UPDATE
SET sealed = excluded.sealed, occurred_at = excluded.occurred_at, event_id = excluded.event_id
WHERE (kept.occurred_at, kept.event_id) < (excluded.occurred_at, excluded.event_id)

-- name: count_stale_refusals
-- Why: a refused write of a former owner is counted where everybody sees it.
UPDATE virtual_shards SET stale_refusals = stale_refusals + 1 WHERE shard = ANY($1::smallint[])

-- name: claim_shards
-- Why: a new owner raises the epoch; from its commit on the former owner's writes are refused.
UPDATE virtual_shards v SET epoch = v.epoch + 1, owner = $2
FROM (SELECT shard, owner AS former FROM virtual_shards
      WHERE shard = ANY($1::smallint[]) ORDER BY shard FOR UPDATE) AS mine
WHERE v.shard = mine.shard
RETURNING v.shard, v.epoch, v.seq, mine.former

-- name: stand_shards
-- Why: a claimed shard stands where its former owner's transitions do, until its new owner has told
-- its own; former owners in the order of the shards given.
UPDATE virtual_shards v SET clock_us = coalesce(v.clock_us, c.clock_us)
FROM unnest($1::smallint[], $2::text[]) AS was (shard, owner)
LEFT JOIN segment_clocks c ON c.owner = was.owner
WHERE v.shard = was.shard
RETURNING v.shard, v.clock_us

-- name: shards_arrived
-- Why: from now on they stand where their owner's clock does.
UPDATE virtual_shards SET clock_us = NULL WHERE shard = ANY($1::smallint[])

-- name: tell
-- Why: transitions go in with the events that cause them, and with them how far their owner has told
-- all: one statement, for each is a round trip while shards are locked. What is told again, after a
-- commit whose outcome was unknown, is there already. Readers are woken ($11), but not each time.
WITH told AS (
    INSERT INTO segment_transitions (shard, brand, segment, version, player_id, entered, seq, at)
    SELECT * FROM unnest($3::smallint[], $4::text[], $5::text[], $6::int[], $7::text[],
                         $8::boolean[], $9::bigint[], $10::timestamptz[])
    ON CONFLICT DO NOTHING
), clock AS (
    INSERT INTO segment_clocks (owner, clock_us) SELECT $1::text, $2::bigint WHERE $2::bigint IS NOT NULL
    ON CONFLICT (owner)
    DO UPDATE SET clock_us = greatest(segment_clocks.clock_us, excluded.clock_us)
)
SELECT pg_notify('segment_transitions', '') WHERE $11::boolean

-- name: end_blockers_of
-- Why: a former owner that was stopped inside its transaction must not block its successor.
SELECT pg_terminate_backend(pid) FROM unnest(pg_blocking_pids($1)) AS pid

-- name: settled_heads
-- Why: after a commit of unknown outcome; the rows' locks are those that its transaction holds.
SELECT shard, seq FROM virtual_shards WHERE shard = ANY($1::smallint[]) ORDER BY shard FOR UPDATE

-- name: epochs
-- Why: who owns what now; readers believe only answers of these epochs.
SELECT shard, epoch, owner FROM virtual_shards ORDER BY shard

-- name: log_after
-- Why: replay, and the read-back after a commit whose outcome is unknown.
SELECT e.shard, e.seq, e.brand, e.event_id, e.player_id, e.type, e.occurred_at, e.received_at,
       e.known_at, e.local_day, e.amount_minor, e.currency, e.properties::text AS properties,
       CASE WHEN e.type = 'bet.settled' THEN e.properties ->> 'result' END AS result, e.backfill,
       e.original_amount, e.original_currency
FROM unnest($1::smallint[], $2::bigint[]) AS after (shard, seq)
CROSS JOIN LATERAL (
    SELECT * FROM user_transactions t WHERE t.shard = after.shard AND t.seq > after.seq
    UNION ALL
    SELECT * FROM user_sessions s WHERE s.shard = after.shard AND s.seq > after.seq
) AS e

-- name: latest_snapshots
-- Why: where a successor starts from; the two newest of each shard, best first.
SELECT shard, seq, name FROM (
    SELECT shard, seq, name, row_number() OVER (PARTITION BY shard ORDER BY seq DESC, epoch DESC) AS age
    FROM shard_snapshots WHERE shard = ANY($1::smallint[])) AS ranked
WHERE age <= 2 ORDER BY shard, seq DESC

-- name: record_snapshot
-- Why: the manifest, written under the epoch: a former owner's file is never believed.
INSERT INTO shard_snapshots (shard, epoch, seq, name, size, taken_at)
SELECT shard, epoch, $3, $4, $5, now() FROM virtual_shards WHERE shard = $1 AND epoch = $2
ON CONFLICT DO NOTHING
RETURNING shard

-- name: forget_snapshots
-- Why: keeps the two newest snapshots of a shard; the names returned can leave the lake.
DELETE FROM shard_snapshots WHERE shard = $1 AND (seq, epoch) IN (
    SELECT seq, epoch FROM shard_snapshots WHERE shard = $1 ORDER BY seq DESC, epoch DESC OFFSET 2)
RETURNING name

-- name: keep_in_quarantine
-- Why: refused events are kept, sealed, until somebody mends them.
INSERT INTO quarantine (received_at, source, code, message, digest, sealed)
SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::bytea[], $6::bytea[])
ON CONFLICT (digest) DO NOTHING

-- name: partitions
-- Why: which partitions are there.
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::text::regclass
