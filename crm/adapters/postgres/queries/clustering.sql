-- name: add
-- A repeated job stores its model once.
INSERT INTO player_clusters (id, brand, created_at, model)
VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO NOTHING;

-- name: latest
-- The model in use; a tie of two in one microsecond falls the same way every time.
SELECT model
FROM player_clusters
WHERE brand = $1
ORDER BY created_at DESC, id DESC
LIMIT 1;
