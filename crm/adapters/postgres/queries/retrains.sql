-- name: ask
-- Why: an id is derived from what asks, so whoever asks again, or at the same time, changes nothing;
-- neither does one who asks while another retrain of the brand and kind is active.
INSERT INTO retrains (id, brand, kind, cause, occasion, request, options, state, asked_at, changed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, 'queued', $8, $8)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: get
-- Why: one retrain, and what was asked under its id.
SELECT * FROM retrains WHERE id = $1;

-- name: active_of
-- Why: whom one who asked in vain is shown.
SELECT * FROM retrains
WHERE brand = $1 AND kind = $2 AND state IN ('queued', 'submitted', 'running');

-- name: page
-- Why: a brand's retrains, the newest first; a row value, so that equal times keep an order.
SELECT * FROM retrains
WHERE brand = $1 AND ($2::text IS NULL OR kind = $2)
  AND ($3::timestamptz IS NULL OR (asked_at, id) < ($3, $4::text))
ORDER BY asked_at DESC, id DESC LIMIT $5;

-- name: active
-- Why: what the keeper looks after; the partial index holds these rows alone.
SELECT * FROM retrains WHERE state IN ('queued', 'submitted', 'running') ORDER BY asked_at, id;

-- name: note_submitted
-- Why: Ray has taken the job; it may have begun meanwhile.
UPDATE retrains SET state = 'submitted', changed_at = $2 WHERE id = $1 AND state = 'queued';

-- name: begin
-- Why: of two jobs for one retrain one begins, whatever brought them about.
UPDATE retrains SET state = 'running', started_at = $2, changed_at = $2
WHERE id = $1 AND state IN ('queued', 'submitted')
RETURNING *;

-- name: finish
-- Why: only who is still taken for running has an end to tell.
UPDATE retrains
SET state = 'done', model = $2, promoted = $3, note = $4, ended_at = $5, changed_at = $5
WHERE id = $1 AND state = 'running'
RETURNING true;

-- name: fail
-- Why: the job itself and the keeper may both say so: the first reason counts.
UPDATE retrains SET state = 'failed', reason = $2, ended_at = $3, changed_at = $3
WHERE id = $1 AND state IN ('queued', 'submitted', 'running')
RETURNING true;

-- name: newest
-- Why: an interval counts from the newest retrain, whatever asked for it.
SELECT max(asked_at) FROM retrains WHERE brand = $1 AND kind = $2;

-- name: plan
-- Why: a schedule counts from when it was first seen; a second scheduler finds the first one's time.
INSERT INTO retrain_plans (brand, kind, since) VALUES ($1, $2, $3)
ON CONFLICT (brand, kind) DO UPDATE SET since = retrain_plans.since
RETURNING since;

-- name: note_drift
-- Why: the newest look counts, in whatever order two schedulers write theirs.
INSERT INTO model_drift (model, at, drift) VALUES ($1, $2, $3::jsonb)
ON CONFLICT (model) DO UPDATE SET at = excluded.at, drift = excluded.drift
WHERE model_drift.at <= excluded.at;

-- name: drift
-- Why: what the newest look found.
SELECT drift FROM model_drift WHERE model = $1;
