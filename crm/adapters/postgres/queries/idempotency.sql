-- name: take_key
-- Waits for whoever holds the same key in a transaction of its own; nothing comes back if it is taken.
INSERT INTO idempotency_keys (caller, key, request, made_at)
VALUES ($1, $2, $3, now())
ON CONFLICT DO NOTHING
RETURNING true;

-- name: answer_of_key
-- What was asked and answered under a key.
SELECT request, answer FROM idempotency_keys WHERE caller = $1 AND key = $2;

-- name: note_answer
-- In the transaction of the change: both are there, or neither is.
UPDATE idempotency_keys SET answer = $3 WHERE caller = $1 AND key = $2;

-- name: forget_keys
-- Whoever asks again does so soon.
DELETE FROM idempotency_keys WHERE made_at < $1;
