-- name: recount
-- Why: the features of every player of a brand by SQL over the raw events, written by hand: it
-- shares nothing with the feature list, so that one can be held against the other.
-- $1 brand, $2 as of, $3 the local day of $2, $4 the start of the hour 23 hours before that of $2.
WITH events AS (
    SELECT player_id, type, occurred_at, local_day, coalesce(amount_minor, 0) AS amount,
           properties ->> 'result' AS result
    FROM user_transactions WHERE brand = $1::text AND occurred_at <= $2::timestamptz
    UNION ALL
    SELECT player_id, type, occurred_at, local_day, coalesce(amount_minor, 0), NULL
    FROM user_sessions WHERE brand = $1::text AND occurred_at <= $2::timestamptz
), windows (name, since_day, since_time) AS (
    VALUES ('24h', NULL::date, $4::timestamptz),
           ('7d', $3::date - 6, NULL),
           ('30d', $3::date - 29, NULL),
           ('lifetime', NULL, NULL)
), totals AS (
    SELECT p.player_id, w.name AS win,
        count(*) FILTER (WHERE type = 'deposit.completed') AS deposit_count,
        coalesce(sum(amount) FILTER (WHERE type = 'deposit.completed'), 0) AS deposit_amount,
        count(*) FILTER (WHERE type = 'deposit.failed') AS failed_deposit_count,
        count(*) FILTER (WHERE type = 'withdrawal.completed') AS withdrawal_count,
        coalesce(sum(amount) FILTER (WHERE type = 'withdrawal.completed'), 0) AS withdrawal_amount,
        count(*) FILTER (WHERE type = 'withdrawal.cancelled') AS cancelled_withdrawal_count,
        count(*) FILTER (WHERE type = 'bet.placed') AS bet_count,
        coalesce(sum(amount) FILTER (WHERE type = 'bet.placed'), 0) AS stake_amount,
        coalesce(sum(amount) FILTER (WHERE type = 'bet.settled'), 0) AS payout_amount,
        count(*) FILTER (WHERE type = 'bet.settled' AND result = 'won') AS win_count,
        count(*) FILTER (WHERE type = 'bet.settled' AND result = 'lost') AS loss_count,
        count(*) FILTER (WHERE type = 'bonus.granted') AS bonus_count,
        coalesce(sum(amount) FILTER (WHERE type = 'bonus.granted'), 0) AS bonus_amount,
        count(*) FILTER (WHERE type = 'session.started') AS session_count
    FROM (SELECT DISTINCT player_id FROM events) AS p CROSS JOIN windows w
    LEFT JOIN events e ON e.player_id = p.player_id
                      AND (since_day IS NULL OR local_day >= since_day)
                      AND (since_time IS NULL OR occurred_at >= since_time)
    GROUP BY p.player_id, w.name
), named AS (
    SELECT player_id, key || '_' || win AS feature, value::bigint AS value
    FROM totals CROSS JOIN LATERAL jsonb_each_text(
        to_jsonb(totals) - 'player_id' - 'win'
        || jsonb_build_object('ggr_amount', stake_amount - payout_amount,
                              'ngr_amount', stake_amount - payout_amount - bonus_amount)) AS cell
), moments AS (
    SELECT player_id,
        min(occurred_at) AS first_activity_at, max(occurred_at) AS last_activity_at,
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
UNION ALL SELECT player_id, feature, value FROM times
UNION ALL SELECT player_id, feature, value FROM days
