-- name: lags
-- Why: what the lake lacks: each shard's events above `written`, up to `head`.
SELECT l.shard, l.seq AS written, v.seq AS head
FROM lake_shards l JOIN virtual_shards v USING (shard) ORDER BY shard

-- name: events_between
-- Why: the rows of the lake's files, as CSV: numbers for times, and the facts that features read.
SELECT e.shard, e.seq, e.brand, e.player_id, e.event_id, e.type,
       (extract(epoch FROM e.occurred_at) * 1000000)::bigint,
       (extract(epoch FROM e.received_at) * 1000000)::bigint,
       (extract(epoch FROM e.known_at) * 1000000)::bigint,
       e.local_day - date '1970-01-01',
       e.amount_minor, e.currency, e.backfill::int,
       CASE WHEN e.type = 'bet.settled' THEN e.properties ->> 'result' END,
       CASE WHEN e.type IN ('bet.placed', 'bet.settled') THEN e.properties ->> 'product' END,
       CASE WHEN e.type = 'deposit.completed' THEN e.properties ->> 'method' END,
       CASE WHEN e.type = 'session.ended' AND jsonb_typeof(e.properties -> 'duration_s') = 'number' THEN
            CASE WHEN (e.properties -> 'duration_s')::numeric BETWEEN 0 AND 604800
                  AND (e.properties -> 'duration_s')::numeric % 1 = 0
                 THEN (e.properties -> 'duration_s')::numeric::bigint END END,
       e.properties::text, e.original_amount, e.original_currency
FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS span (shard, after, upto)
CROSS JOIN LATERAL (
    SELECT * FROM user_transactions t
    WHERE t.shard = span.shard AND t.seq > span.after AND t.seq <= span.upto
    UNION ALL
    SELECT * FROM user_sessions s
    WHERE s.shard = span.shard AND s.seq > span.after AND s.seq <= span.upto
) AS e
ORDER BY e.shard, e.seq

-- name: advance
-- Why: the fence between writers: each file must begin where the lake ends, or it is not listed.
UPDATE lake_shards l SET seq = next.last
FROM (SELECT h.shard, f.first, f.last FROM lake_shards h
      JOIN unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS f (shard, first, last)
        ON f.shard = h.shard
      ORDER BY h.shard FOR UPDATE OF h) AS next
WHERE l.shard = next.shard AND l.seq = next.first - 1
RETURNING l.shard

-- name: list_files
-- Why: the manifest of what `advance` has let in.
INSERT INTO lake_files (shard, first_seq, last_seq, name, size, schema_version)
SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[],
                     $6::smallint[])

-- name: files
-- Why: what readers read, and nothing else.
SELECT shard, first_seq, last_seq, name, size, schema_version FROM lake_files
WHERE shard = ANY($1::smallint[]) ORDER BY shard, first_seq

-- name: unlist_files
-- Why: compaction takes the place of the files that it has read, if all of them still stand.
DELETE FROM lake_files WHERE shard = $1 AND name = ANY($2::text[]) RETURNING name

-- name: mark_replaced
-- Why: readers may be at them: the bytes go later.
INSERT INTO lake_replaced (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING

-- name: replaced_before
-- Why: files that nobody can be reading any more.
SELECT name FROM lake_replaced WHERE replaced_at < $1

-- name: forget_replaced
-- Why: their bytes are gone.
DELETE FROM lake_replaced WHERE name = ANY($1::text[])

-- name: droppable_sessions
-- Why: the days of sessions that end before their retention does.
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'user_sessions'::regclass AND c.relname ~ '^user_sessions_\d{4}_\d\d_\d\d$'
  AND to_date(right(c.relname, 10), 'YYYY_MM_DD') < $1::date
ORDER BY 1

-- name: note_dropped
-- Why: a recount has to look into the lake for these; the day only ever rises.
WITH raised AS (UPDATE sessions_dropped SET before = greatest(before, $1::date) RETURNING 1)
INSERT INTO sessions_dropped SELECT $1::date WHERE NOT EXISTS (SELECT FROM raised)

-- name: drop_old_sessions
-- Why: the default partition holds what came later than the retention; it may go once in the lake.
DELETE FROM user_sessions_old s USING lake_shards l
WHERE l.shard = s.shard AND s.seq <= l.seq

-- name: sessions_dropped
-- Why: before which day sessions may stand in the lake alone; null: none do.
SELECT max(before) AS before FROM sessions_dropped
