-- name: has_events
-- Why: the demonstration brand is loaded only once.
SELECT EXISTS (SELECT 1 FROM event_ids WHERE brand = $1)

-- name: known_brands
-- Why: what the log's events were taken in under must not change below them.
SELECT id, currency, decimals, time_zone FROM brands ORDER BY id

-- name: add_brand
-- Why: notes a new brand; two processes that start at once agree.
INSERT INTO brands (id, currency, decimals, time_zone) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO NOTHING

-- name: forget_brand
-- Why: a brand without events may change, or go.
DELETE FROM brands WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM event_ids WHERE brand = $1)
RETURNING id
