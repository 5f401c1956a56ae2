-- name: lock_kind
-- One change of a brand and kind after the other; the row is made by the first.
INSERT INTO model_kinds (brand, kind) VALUES ($1, $2)
ON CONFLICT (brand, kind) DO UPDATE SET models = model_kinds.models
RETURNING promotion, serving;

-- name: kind_of
-- Which lock a change of this model needs; a model never moves.
SELECT brand, kind FROM models WHERE id = $1;

-- name: take_number
-- Under the lock: numbers have no gaps.
UPDATE model_kinds SET models = models + 1 WHERE brand = $1 AND kind = $2 RETURNING models;

-- name: add_model
-- The row that makes it a model.
INSERT INTO models
    (id, brand, kind, number, algorithm, created_at, about, beats_baseline, document, run)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: add_files
-- What each file in the lake must read like.
INSERT INTO model_files (model, name, bytes, sha256)
SELECT $1, name, bytes, sha256
FROM unnest($2::text[], $3::bigint[], $4::bytea[]) AS given (name, bytes, sha256);

-- name: add_change
-- The record only grows.
INSERT INTO model_changes (by, brand, kind, action, model, before, why, forced, former)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING id;

-- name: serve
-- Under the lock of the kind.
UPDATE model_kinds SET promotion = $3, serving = $4 WHERE brand = $1 AND kind = $2;

-- name: promotion_before
-- The promotion whose place this one took.
SELECT f.id, f.model
FROM model_changes c JOIN model_changes f ON f.id = c.former
WHERE c.id = $1;

-- name: raise_revision
-- Last in the transaction of every change of who serves: its lock is held until the commit.
UPDATE models_revision SET revision = revision + 1;

-- name: revision
-- Does anybody serve who did not when I loaded? One row.
SELECT revision FROM models_revision;

-- name: model
-- One model as it stands.
SELECT m.id, m.brand, m.kind, m.number, m.algorithm, m.created_at, m.about, m.beats_baseline, m.run,
       k.serving = m.id AS serving, p.at AS promoted_at, f.names
FROM models m
JOIN model_kinds k USING (brand, kind)
LEFT JOIN LATERAL (
    SELECT at FROM model_changes
    WHERE model = m.id AND action <> 'registered' ORDER BY id DESC LIMIT 1
) p ON true
LEFT JOIN LATERAL (
    SELECT array_agg(name ORDER BY name) AS names FROM model_files WHERE model = m.id
) f ON true
WHERE m.id = $1;

-- name: page
-- The newest first; the key (created_at, id) never changes, so a page stays right.
SELECT m.id, m.brand, m.kind, m.number, m.algorithm, m.created_at, m.about, m.beats_baseline, m.run,
       k.serving = m.id AS serving, p.at AS promoted_at, f.names
FROM models m
JOIN model_kinds k USING (brand, kind)
LEFT JOIN LATERAL (
    SELECT at FROM model_changes
    WHERE model = m.id AND action <> 'registered' ORDER BY id DESC LIMIT 1
) p ON true
LEFT JOIN LATERAL (
    SELECT array_agg(name ORDER BY name) AS names FROM model_files WHERE model = m.id
) f ON true
WHERE m.brand = $1 AND ($2::text IS NULL OR m.kind = $2)
  AND ($3::timestamptz IS NULL OR (m.created_at, m.id) < ($3, $4))
ORDER BY m.created_at DESC, m.id DESC
LIMIT $5;

-- name: serving
-- What those load who serve: at most one a kind, of one brand or (NULL) of all.
SELECT m.id, m.brand, m.kind, m.number, m.algorithm, m.created_at, m.about, m.beats_baseline, m.run,
       true AS serving, p.at AS promoted_at, f.names
FROM model_kinds k
JOIN models m ON m.id = k.serving
LEFT JOIN LATERAL (
    SELECT at FROM model_changes
    WHERE model = m.id AND action <> 'registered' ORDER BY id DESC LIMIT 1
) p ON true
LEFT JOIN LATERAL (
    SELECT array_agg(name ORDER BY name) AS names FROM model_files WHERE model = m.id
) f ON true
WHERE $1::text IS NULL OR k.brand = $1
ORDER BY k.brand, k.kind;

-- name: document
-- What serving loads; it may be megabytes, so it is read alone.
SELECT document FROM models WHERE id = $1;

-- name: files
-- No row: no model. A name of NULL: a model without files.
SELECT f.name, f.sha256 FROM models m LEFT JOIN model_files f ON f.model = m.id WHERE m.id = $1;

-- name: installation
-- Whose runs these are, where several installations share one MLflow. One row.
SELECT id FROM installation;

-- name: known
-- Who is registered; the rest are leftovers.
SELECT id FROM models WHERE id = ANY($1::text[]);

-- name: changes
-- The record of a brand, the newest first, below an id.
SELECT id, at, by, brand, kind, action, model, before, why, forced
FROM model_changes
WHERE brand = $1 AND ($2::bigint IS NULL OR id < $2)
ORDER BY id DESC
LIMIT $3;
