-- name: head
-- Why: a stream that begins now begins here: whatever commits later has this xact or a later one,
-- or is below it and not visible to anybody yet, which the xmin excludes.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint

-- name: transitions_after
-- Why: what is new for all sockets of a process. Only rows below the oldest open transaction are
-- read: an id or xact may become visible after a later one, and a reader that had gone past it
-- would miss it for ever. `held` says that some wait behind such a transaction: the newest row
-- does then (by ORDER BY and LIMIT: EXISTS is planned as a scan of the table, for each row).
WITH seen AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin,
           (SELECT xact FROM segment_transitions ORDER BY xact DESC, id DESC LIMIT 1) AS newest
)
SELECT seen.xmin::text::bigint AS horizon, coalesce(seen.newest >= seen.xmin, false) AS held,
       t.xact::text::bigint AS xact, t.id, t.brand, t.segment, t.version, t.player_id, t.entered,
       t.shard, t.seq, t.at, t.made_at
FROM seen LEFT JOIN LATERAL (
    SELECT * FROM segment_transitions
    WHERE (xact, id) > ($1::text::xid8, $2::bigint) AND xact < seen.xmin
    ORDER BY xact, id LIMIT $3
) AS t ON true
ORDER BY t.xact, t.id

-- name: dropped
-- Why: a cursor before this one has missed something.
SELECT dropped_xact::text::bigint AS xact, dropped_id AS id FROM transitions_kept

-- name: transitions_between
-- Why: what one subscriber has missed, up to where the stream stands. A page is a piece of the
-- whole stream, so that its cost is bounded however few of its rows are wanted; `last` is its end.
-- `gone`: some of it has been dropped, as the same snapshot shows.
WITH piece AS MATERIALIZED (
    SELECT * FROM segment_transitions
    WHERE (xact, id) > ($1::text::xid8, $2::bigint) AND (xact, id) <= ($3::text::xid8, $4::bigint)
    ORDER BY xact, id LIMIT $5
), size AS (
    SELECT count(*) AS read FROM piece
), last AS (
    SELECT xact, id FROM piece ORDER BY xact DESC, id DESC LIMIT 1
)
SELECT (SELECT (dropped_xact, dropped_id) > ($1::text::xid8, $2::bigint) FROM transitions_kept) AS gone,
       size.read, last.xact::text::bigint AS last_xact, last.id AS last_id,
       t.xact::text::bigint AS xact, t.id, t.brand, t.segment, t.version, t.player_id, t.entered,
       t.shard, t.seq, t.at, t.made_at
FROM size LEFT JOIN last ON true
LEFT JOIN piece t ON t.brand = $6 AND ($7::text[] IS NULL OR t.segment = ANY($7))
ORDER BY t.xact, t.id

-- name: unknown_segments
-- Why: a subscriber that mistypes an id is told, instead of waiting for nothing.
SELECT asked.id FROM unnest($2::text[]) AS asked (id)
WHERE NOT EXISTS (SELECT FROM segments s WHERE s.id = asked.id AND s.brand = $1)

-- name: make_ticket
-- Why: only the digest is kept. Sweeps a few that nobody used, without waiting for others.
WITH swept AS (
    DELETE FROM live_tickets WHERE digest IN (
        SELECT digest FROM live_tickets WHERE expires_at <= clock_timestamp()
        ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)
)
INSERT INTO live_tickets (digest, key_sha256, expires_at)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
RETURNING expires_at

-- name: redeem_ticket
-- Why: one statement, so that of two sockets with one ticket one opens; a key that was removed
-- meanwhile opens nothing.
DELETE FROM live_tickets t USING api_keys k
WHERE t.digest = $1 AND t.expires_at > clock_timestamp() AND k.key_sha256 = t.key_sha256
RETURNING t.key_sha256

-- name: log_length
-- Why: how many events there are and were: every virtual shard's seq is the number of its events.
SELECT coalesce(sum(seq), 0)::bigint FROM virtual_shards

-- name: put_job
-- Why: the newest state of a job; times by the database's clock, since jobs run anywhere.
INSERT INTO job_progress (id, kind, what, brand, state, done, total, unit, message)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (id) DO UPDATE
SET what = excluded.what, state = excluded.state, done = excluded.done, total = excluded.total,
    message = excluded.message, changed_at = clock_timestamp()

-- name: sweep_jobs
-- Why: what ended long ago interests nobody.
DELETE FROM job_progress WHERE changed_at < clock_timestamp() - make_interval(days => $1)

-- name: jobs_since
-- Why: what the socket shows. A running job that has said nothing for `$2` seconds is lost: its
-- process was killed. `now` is where the next reading begins, less what may commit late.
SELECT id, kind, what, brand, done, total, unit, message, started_at, changed_at,
       CASE WHEN state = 'running' AND changed_at < clock_timestamp() - make_interval(secs => $2)
            THEN 'lost' ELSE state END AS state
FROM job_progress
WHERE changed_at > clock_timestamp() - make_interval(secs => $1)
   OR state = 'running'
ORDER BY changed_at DESC LIMIT $3
