-- name: key_names
-- Why: is this key known? One row a key, by digest.
SELECT key_sha256, name FROM api_keys

-- name: put_key
-- Why: the bootstrap key is made again when its file is lost.
INSERT INTO api_keys (name, key_sha256) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET key_sha256 = excluded.key_sha256
