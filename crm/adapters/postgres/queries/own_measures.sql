-- name: recount_own_measure
-- Why: one measure of a brand's own by SQL over the raw events, so that the live one can be held
-- against it; what counts and what it adds is decided here anew, by jsonb and numeric.
-- $1 brand, $2 as of, $3 the local day of $2, $4 the start of the hour 23 hours before that of $2,
-- $5 shards and $6 the seq of each up to which events count; of the measure $7 its name, $8 its event
-- types, $9 an object of properties and the values that each may have, $10 the property that is added
-- (NULL: none), $11 what 1 of it is in integers, $12 its aggregate.
WITH stored AS (
    SELECT player_id, type, occurred_at, local_day, properties
    FROM unnest($5::smallint[], $6::bigint[]) AS up_to (shard, seq)
    JOIN user_transactions t ON t.shard = up_to.shard AND t.seq <= up_to.seq
    WHERE brand = $1::text AND occurred_at <= $2::timestamptz
    UNION ALL
    SELECT player_id, type, occurred_at, local_day, properties
    FROM unnest($5::smallint[], $6::bigint[]) AS up_to (shard, seq)
    JOIN user_sessions s ON s.shard = up_to.shard AND s.seq <= up_to.seq
    WHERE brand = $1::text AND occurred_at <= $2::timestamptz
    UNION ALL
    SELECT player_id, type, occurred_at, local_day, properties
    FROM unnest($5::smallint[], $6::bigint[]) AS up_to (shard, seq)
    JOIN lake_sessions l ON l.shard = up_to.shard AND l.seq <= up_to.seq
    WHERE brand = $1::text AND occurred_at <= $2::timestamptz
      AND NOT EXISTS (SELECT FROM user_sessions s WHERE s.shard = l.shard AND s.seq = l.seq)
), chosen AS (
    SELECT player_id, occurred_at, local_day,
           CASE WHEN $10::text IS NULL THEN 1
                WHEN jsonb_typeof(properties -> $10) = 'number'
                THEN round((properties -> $10)::numeric * $11::bigint) END AS value
    FROM stored
    WHERE type = ANY ($8::text[]) AND NOT EXISTS (
        SELECT FROM jsonb_each($9::jsonb) AS asked (property, one_of)
        WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(one_of) AS one
                          WHERE one = properties -> property))
), counted AS (
    SELECT player_id, occurred_at, local_day, value FROM chosen WHERE abs(value) <= 1e15
), windows (name, since_day, since_time) AS (
    VALUES ('24h', NULL::date, $4::timestamptz),
           ('7d', $3::date - 6, NULL),
           ('30d', $3::date - 29, NULL),
           ('90d', $3::date - 89, NULL),
           ('lifetime', NULL, NULL)
), totals AS (
    SELECT p.player_id, w.name AS win, count(value) AS events,
           coalesce(sum(value), 0)::bigint AS total, count(DISTINCT local_day) AS days
    FROM (SELECT DISTINCT player_id FROM stored) AS p CROSS JOIN windows w
    LEFT JOIN counted c ON c.player_id = p.player_id
                       AND (since_day IS NULL OR local_day >= since_day)
                       AND (since_time IS NULL OR occurred_at >= since_time)
    GROUP BY p.player_id, w.name
)
SELECT player_id, feature || '_' || win AS feature, value
FROM totals CROSS JOIN LATERAL (VALUES
    ('count', $7::text || '_count', events),
    ('sum', $7 || '_sum', total),
    ('mean', 'mean_' || $7, ratio(total, events, 1)),
    ('days', $7 || '_days', CASE WHEN win <> '24h' THEN days END)
) AS cell (aggregate, feature, value)
WHERE aggregate = $12::text AND value IS NOT NULL
