-- name: make_lake_sessions
-- Why: a place for old sessions that stand in the lake alone; a temporary table of one connection.
CREATE TEMPORARY TABLE IF NOT EXISTS lake_sessions (
    shard smallint, seq bigint, brand text COLLATE "C", player_id text COLLATE "C",
    type text COLLATE "C", occurred_at timestamptz, local_day date, properties jsonb)

-- name: drop_lake_sessions
-- Why: the next recount brings its own.
TRUNCATE lake_sessions

-- name: recount
-- Why: the features of every player of a brand by SQL over the raw events, written by hand: it
-- shares nothing with the feature list, so that one can be held against the other.
-- $1 brand, $2 as of, $3 the local day of $2, $4 the start of the hour 23 hours before that of $2,
-- $5 the brand's time zone, $6 shards and $7 the seq of each up to which events count.
WITH stored AS (
    SELECT player_id, type, occurred_at, local_day, amount_minor, properties
    FROM unnest($6::smallint[], $7::bigint[]) AS up_to (shard, seq)
    JOIN user_transactions t ON t.shard = up_to.shard AND t.seq <= up_to.seq
    WHERE brand = $1::text AND occurred_at <= $2::timestamptz
    UNION ALL
    SELECT player_id, type, occurred_at, local_day, amount_minor, properties
    FROM unnest($6::smallint[], $7::bigint[]) AS up_to (shard, seq)
    JOIN user_sessions s ON s.shard = up_to.shard AND s.seq <= up_to.seq
    WHERE brand = $1::text AND occurred_at <= $2::timestamptz
    UNION ALL
    SELECT player_id, type, occurred_at, local_day, NULL, properties
    FROM unnest($6::smallint[], $7::bigint[]) AS up_to (shard, seq)
    JOIN lake_sessions l ON l.shard = up_to.shard AND l.seq <= up_to.seq
    WHERE brand = $1::text AND occurred_at <= $2::timestamptz
      AND NOT EXISTS (SELECT FROM user_sessions s WHERE s.shard = l.shard AND s.seq = l.seq)
), events AS (
    SELECT player_id, type, occurred_at, local_day, coalesce(amount_minor, 0) AS amount,
           properties ->> 'result' AS result,
           CASE WHEN properties ->> 'product' IN ('casino', 'live', 'sports', 'poker', 'crash')
                THEN properties ->> 'product' ELSE 'other' END AS product,
           CASE WHEN properties ->> 'method' IN ('card', 'bank_transfer', 'pix', 'ewallet', 'voucher',
                                                 'crypto', 'cash')
                THEN properties ->> 'method' ELSE 'other' END AS method,
           CASE WHEN jsonb_typeof(properties -> 'duration_s') = 'number' THEN
                CASE WHEN (properties -> 'duration_s')::numeric BETWEEN 0 AND 604800
                      AND (properties -> 'duration_s')::numeric % 1 = 0
                     THEN (properties -> 'duration_s')::numeric::bigint ELSE 0 END
                ELSE 0 END AS seconds,
           occurred_at < (local_day + time '06:00') AT TIME ZONE $5::text AS night,
           extract(isodow FROM local_day) >= 6 AS weekend,
           type IN ('player.registered', 'session.started', 'session.ended', 'deposit.requested',
                    'deposit.completed', 'deposit.failed', 'withdrawal.requested',
                    'withdrawal.completed', 'withdrawal.cancelled', 'bet.placed', 'message.opened',
                    'message.clicked') AS own
    FROM stored
), windows (name, since_day, since_time) AS (
    VALUES ('24h', NULL::date, $4::timestamptz),
           ('7d', $3::date - 6, NULL),
           ('14d', $3::date - 13, NULL),
           ('30d', $3::date - 29, NULL),
           ('35d', $3::date - 34, NULL),
           ('90d', $3::date - 89, NULL),
           ('lifetime', NULL, NULL)
), totals AS (
    SELECT p.player_id, w.name AS win,
        count(type) AS event_count,
        count(*) FILTER (WHERE type = 'deposit.completed') AS deposit_count,
        coalesce(sum(amount) FILTER (WHERE type = 'deposit.completed'), 0)::bigint AS deposit_amount,
        count(*) FILTER (WHERE type = 'deposit.failed') AS failed_deposit_count,
        count(*) FILTER (WHERE type = 'withdrawal.completed') AS withdrawal_count,
        coalesce(sum(amount) FILTER (WHERE type = 'withdrawal.completed'), 0)::bigint AS withdrawal_amount,
        count(*) FILTER (WHERE type = 'withdrawal.cancelled') AS cancelled_withdrawal_count,
        count(*) FILTER (WHERE type = 'bet.placed') AS bet_count,
        coalesce(sum(amount) FILTER (WHERE type = 'bet.placed'), 0)::bigint AS stake_amount,
        coalesce(sum(amount) FILTER (WHERE type = 'bet.settled'), 0)::bigint AS payout_amount,
        count(*) FILTER (WHERE type = 'bet.settled' AND result = 'won') AS win_count,
        count(*) FILTER (WHERE type = 'bet.settled' AND result = 'lost') AS loss_count,
        count(*) FILTER (WHERE type = 'bonus.granted') AS bonus_count,
        coalesce(sum(amount) FILTER (WHERE type = 'bonus.granted'), 0)::bigint AS bonus_amount,
        count(*) FILTER (WHERE type = 'session.started') AS session_count,
        coalesce(sum(seconds) FILTER (WHERE type = 'session.ended'), 0)::bigint AS session_seconds,
        count(DISTINCT local_day) FILTER (WHERE own) AS active_days,
        count(DISTINCT local_day) FILTER (WHERE type = 'deposit.completed') AS deposit_days,
        count(DISTINCT local_day) FILTER (WHERE type = 'bet.placed') AS bet_days,
        count(*) FILTER (WHERE type = 'bet.placed' AND night) AS night_bet_count,
        count(*) FILTER (WHERE type = 'bet.placed' AND weekend) AS weekend_bet_count,
        count(*) FILTER (WHERE type = 'deposit.completed' AND night) AS night_deposit_count,
        count(*) FILTER (WHERE type = 'message.sent') AS message_sent_count,
        count(*) FILTER (WHERE type = 'message.delivered') AS message_delivered_count,
        count(*) FILTER (WHERE type = 'message.opened') AS message_opened_count,
        count(*) FILTER (WHERE type = 'message.clicked') AS message_clicked_count,
        count(*) FILTER (WHERE type = 'message.bounced') AS message_bounced_count,
        count(*) FILTER (WHERE type = 'message.complained') AS message_complained_count,
        count(*) FILTER (WHERE type = 'message.unsubscribed') AS message_unsubscribed_count,
        count(DISTINCT method) FILTER (WHERE type = 'deposit.completed') AS payment_method_count,
        count(DISTINCT product) FILTER (WHERE type = 'bet.placed') AS product_count
    FROM (SELECT DISTINCT player_id FROM events) AS p CROSS JOIN windows w
    LEFT JOIN events e ON e.player_id = p.player_id
                      AND (since_day IS NULL OR local_day >= since_day)
                      AND (since_time IS NULL OR occurred_at >= since_time)
    GROUP BY p.player_id, w.name
), shares AS (
    SELECT player_id, win, jsonb_build_object(
        'ggr_amount', stake_amount - payout_amount,
        'ngr_amount', stake_amount - payout_amount - bonus_amount,
        'net_deposit_amount', deposit_amount - withdrawal_amount,
        'mean_deposit_amount', ratio(deposit_amount, deposit_count, 1),
        'mean_stake_amount', ratio(stake_amount, bet_count, 1),
        'mean_session_seconds', ratio(session_seconds, session_count, 1),
        'win_share', ratio(win_count, win_count + loss_count, 1000000),
        'weekend_bet_share', ratio(weekend_bet_count, bet_count, 1000000),
        'bonus_share', ratio(bonus_amount, deposit_amount, 1000000),
        'message_open_share',
            ratio(message_opened_count, message_delivered_count, 1000000),
        'message_click_share',
            ratio(message_clicked_count, message_delivered_count, 1000000),
        'night_bet_share', ratio(night_bet_count, bet_count, 1000000),
        'failed_deposit_share',
            ratio(failed_deposit_count, deposit_count + failed_deposit_count, 1000000),
        'cancelled_withdrawal_share', ratio(cancelled_withdrawal_count,
                                            withdrawal_count + cancelled_withdrawal_count, 1000000),
        'deposits_per_deposit_day',
            ratio(deposit_count, deposit_days, 1000000)) AS cells
    FROM totals
), named AS (
    SELECT t.player_id, key || '_' || t.win AS feature, value::numeric::bigint AS value
    FROM totals t JOIN shares s USING (player_id, win)
    CROSS JOIN LATERAL jsonb_each_text(to_jsonb(t) - 'player_id' - 'win' || s.cells) AS cell
    WHERE value IS NOT NULL AND t.win NOT IN ('14d', '35d')
      AND NOT (t.win = '24h' AND key IN ('active_days', 'deposit_days', 'bet_days',
                                         'deposits_per_deposit_day'))
), by_product AS (
    SELECT p.player_id, w.name AS win, of.product,
        count(*) FILTER (WHERE type = 'bet.placed') AS bets,
        coalesce(sum(amount) FILTER (WHERE type = 'bet.placed'), 0)::bigint AS stake,
        coalesce(sum(amount) FILTER (WHERE type = 'bet.settled'), 0)::bigint AS payout
    FROM (SELECT DISTINCT player_id FROM events) AS p
    CROSS JOIN windows w
    CROSS JOIN (VALUES ('casino'), ('live'), ('sports'), ('poker'), ('crash'), ('other')) AS of (product)
    LEFT JOIN events e ON e.player_id = p.player_id AND e.product = of.product
                      AND e.type IN ('bet.placed', 'bet.settled')
                      AND (since_day IS NULL OR local_day >= since_day)
                      AND (since_time IS NULL OR occurred_at >= since_time)
    WHERE w.name NOT IN ('14d', '35d')
    GROUP BY p.player_id, w.name, of.product
), of_products AS (
    SELECT player_id, product || '_' || cell.name || '_' || win AS feature, cell.value
    FROM by_product CROSS JOIN LATERAL (VALUES
        ('bet_count', bets), ('stake_amount', stake), ('payout_amount', payout),
        ('ggr_amount', stake - payout)) AS cell (name, value)
), of_methods AS (
    SELECT p.player_id, of.method || '_deposit_count_' || w.name AS feature, count(e.type) AS value
    FROM (SELECT DISTINCT player_id FROM events) AS p
    CROSS JOIN windows w
    CROSS JOIN (VALUES ('card'), ('bank_transfer'), ('pix'), ('ewallet'), ('voucher'), ('crypto'),
                       ('cash'), ('other')) AS of (method)
    LEFT JOIN events e ON e.player_id = p.player_id AND e.method = of.method
                      AND e.type = 'deposit.completed'
                      AND (since_day IS NULL OR local_day >= since_day)
                      AND (since_time IS NULL OR occurred_at >= since_time)
    WHERE w.name NOT IN ('14d', '35d')
    GROUP BY p.player_id, w.name, of.method
), trends AS (
    SELECT week.player_id, cell.feature,
           ratio(cell.recent * cell.weeks, cell.since - cell.recent, 1000000) AS value
    FROM totals week
    JOIN totals two ON two.player_id = week.player_id AND two.win = '14d'
    JOIN totals five ON five.player_id = week.player_id AND five.win = '35d'
    CROSS JOIN LATERAL (VALUES
        ('deposit_amount_trend_7d', week.deposit_amount, two.deposit_amount, 1),
        ('stake_amount_trend_7d', week.stake_amount, two.stake_amount, 1),
        ('bet_count_trend_7d', week.bet_count, two.bet_count, 1),
        ('session_count_trend_7d', week.session_count, two.session_count, 1),
        ('deposit_count_rise_7d', week.deposit_count, five.deposit_count, 4),
        ('deposit_amount_rise_7d', week.deposit_amount, five.deposit_amount, 4),
        ('stake_amount_rise_7d', week.stake_amount, five.stake_amount, 4),
        ('session_count_rise_7d', week.session_count, five.session_count, 4),
        ('night_bet_count_rise_7d', week.night_bet_count, five.night_bet_count, 4)
    ) AS cell (feature, recent, since, weeks)
    WHERE week.win = '7d'
), moments AS (
    SELECT player_id,
        min(occurred_at) FILTER (WHERE own) AS first_activity_at,
        max(occurred_at) FILTER (WHERE own) AS last_activity_at,
        min(occurred_at) FILTER (WHERE type = 'bet.placed') AS first_bet_at,
        max(occurred_at) FILTER (WHERE type = 'bet.placed') AS last_bet_at,
        min(occurred_at) FILTER (WHERE type = 'deposit.completed') AS first_deposit_at,
        max(occurred_at) FILTER (WHERE type = 'deposit.completed') AS last_deposit_at,
        min(occurred_at) FILTER (WHERE type = 'withdrawal.completed') AS first_withdrawal_at,
        max(occurred_at) FILTER (WHERE type = 'withdrawal.completed') AS last_withdrawal_at,
        min(occurred_at) FILTER (WHERE type = 'session.started') AS first_session_at,
        max(occurred_at) FILTER (WHERE type = 'session.started') AS last_session_at,
        min(occurred_at) FILTER (WHERE type = 'player.registered') AS first_registration_at,
        max(occurred_at) FILTER (WHERE type = 'player.registered') AS last_registration_at
    FROM events GROUP BY player_id
), times AS (
    SELECT player_id, key AS feature,
           (extract(epoch FROM (value #>> '{}')::timestamptz) * 1000000)::bigint AS value
    FROM moments CROSS JOIN LATERAL jsonb_each(to_jsonb(moments) - 'player_id') AS cell
    WHERE value <> 'null'
), days AS (
    SELECT player_id, feature,
           floor(extract(epoch FROM $2::timestamptz - since) / 86400)::bigint AS value
    FROM moments CROSS JOIN LATERAL (VALUES
        ('days_since_last_bet', last_bet_at), ('days_since_last_deposit', last_deposit_at),
        ('days_since_last_withdrawal', last_withdrawal_at),
        ('days_since_last_session', last_session_at),
        ('days_since_registration', first_registration_at),
        ('days_since_last_activity', last_activity_at)) AS cell (feature, since)
    WHERE since IS NOT NULL
)
SELECT player_id, feature, value FROM named
UNION ALL SELECT player_id, feature, value FROM of_products
UNION ALL SELECT player_id, feature, value FROM of_methods
UNION ALL SELECT player_id, feature, value FROM trends WHERE value IS NOT NULL
UNION ALL SELECT player_id, feature, value FROM times
UNION ALL SELECT player_id, feature, value FROM days
