-- name: has_events
-- A demonstration brand is loaded only once.
SELECT EXISTS (SELECT 1 FROM event_ids WHERE brand = $1);
