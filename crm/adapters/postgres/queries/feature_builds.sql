-- name: add_build
-- Why: one statement makes a whole folder of features the brand's current.
INSERT INTO feature_builds (folder, brand, as_of, known_by, players) VALUES ($1, $2, $3, $4, $5)

-- name: current_build
-- Why: readers of batch features read one folder, whole.
SELECT folder FROM feature_builds WHERE brand = $1 ORDER BY made_at DESC, folder DESC LIMIT 1

-- name: builds
-- Why: what the lake keeps.
SELECT folder FROM feature_builds

-- name: forget_old_builds
-- Why: builds that newer ones have replaced, but for the last three of each brand.
DELETE FROM feature_builds WHERE folder IN (
    SELECT folder FROM (SELECT folder, row_number() OVER (PARTITION BY brand ORDER BY made_at DESC) AS age
                        FROM feature_builds) AS ranked WHERE age > 3)
