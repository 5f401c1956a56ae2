-- The registry of models: rows never change, but for who serves; and facts that no shard writes.
CREATE TABLE models (
    id              text COLLATE "C" PRIMARY KEY,
    brand           text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL CHECK (kind IN ('clusters', 'churn', 'value')),
    number          int NOT NULL,               -- from 1, without gaps, within brand and kind
    algorithm       text NOT NULL,
    created_at      timestamptz NOT NULL,
    registered_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    about           jsonb NOT NULL,             -- features, data, parameters, metrics ...: read whole
    beats_baseline  boolean,                    -- NULL: nobody asked
    document        bytea NOT NULL,             -- what serving loads: here, so that it needs no lake
    run             text,                       -- of MLflow
    UNIQUE (brand, kind, number)
);
CREATE INDEX models_page ON models (brand, created_at, id);

-- The files in the lake, by what they must read like.
CREATE TABLE model_files (
    model  text COLLATE "C" NOT NULL REFERENCES models,
    name   text COLLATE "C" NOT NULL,
    bytes  bigint NOT NULL,
    sha256 bytea NOT NULL,
    PRIMARY KEY (model, name)
);

-- Who did what, when and why. A promotion knows the promotion whose place it took: a rollback goes
-- back by one, and another one further.
CREATE TABLE model_changes (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    by     text NOT NULL,                       -- the name of an API key, a user, or `rule`
    brand  text COLLATE "C" NOT NULL,
    kind   text COLLATE "C" NOT NULL,
    action text NOT NULL CHECK (action IN ('registered', 'promoted', 'rolled_back')),
    model  text COLLATE "C" NOT NULL REFERENCES models,
    before text COLLATE "C" REFERENCES models,
    why    text NOT NULL,
    forced boolean NOT NULL,
    former bigint REFERENCES model_changes      -- of a promotion: the one before it
);
CREATE INDEX model_changes_page ON model_changes (brand, id);
CREATE INDEX model_changes_served ON model_changes (model, id) WHERE action <> 'registered';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% only grows', TG_TABLE_NAME;
END $$;
CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON model_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One row a brand and kind: the lock of all changes to it, and who serves.
CREATE TABLE model_kinds (
    brand     text COLLATE "C" NOT NULL,
    kind      text COLLATE "C" NOT NULL,
    models    int NOT NULL DEFAULT 0,
    promotion bigint REFERENCES model_changes,  -- a promotion, also after a rollback to it
    serving   text COLLATE "C" REFERENCES models,
    PRIMARY KEY (brand, kind)
);

-- Raised by the transaction of every promotion and rollback: who serves looks at it, and loads.
CREATE TABLE models_revision (revision bigint NOT NULL);
INSERT INTO models_revision VALUES (0);

-- Facts: the counter's row is locked until the commit, so a seq is never seen before a smaller one.
CREATE TABLE fact_streams (
    stream text COLLATE "C" PRIMARY KEY,
    seq    bigint NOT NULL
);
INSERT INTO fact_streams VALUES ('models', 0);
CREATE TABLE facts (
    stream text COLLATE "C" NOT NULL REFERENCES fact_streams,
    seq    bigint NOT NULL,
    kind   text NOT NULL,
    brand  text COLLATE "C" NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    body   jsonb NOT NULL,
    PRIMARY KEY (stream, seq)
);

-- The clusterings that there are become models; each had served from its training on.
INSERT INTO models (id, brand, kind, number, algorithm, created_at, registered_at, about, document)
SELECT id, brand, 'clusters', row_number() OVER (PARTITION BY brand ORDER BY created_at, id),
       model ->> 'algorithm', created_at, created_at,
       jsonb_build_object(
           'features', model -> 'features',
           'feature_list', '', 'code_version', '',
           'seed', model -> 'seed',
           'params', jsonb_build_object('scaling', model #> '{scaler,method}'),
           'metrics', (
               SELECT jsonb_object_agg(key, value) FROM jsonb_each(model -> 'metrics')
               WHERE jsonb_typeof(value) = 'number'
           ),
           'data', jsonb_build_object(
               'players', model #> '{metrics,players}', 'rows', model #> '{metrics,players}',
               'as_of', model -> 'created_at', 'digest', ''
           )
       ),
       convert_to(model::text, 'UTF8')
FROM player_clusters;

INSERT INTO model_changes (at, by, brand, kind, action, model, before, why, forced)
SELECT created_at, 'rule', brand, 'clusters', 'promoted', id,
       lag(id) OVER (PARTITION BY brand ORDER BY number), 'trained before there was a registry', false
FROM models
ORDER BY brand, number;

ALTER TABLE model_changes DISABLE TRIGGER only_grows;
UPDATE model_changes c SET former = f.id FROM model_changes f WHERE f.model = c.before;
ALTER TABLE model_changes ENABLE TRIGGER only_grows;

INSERT INTO model_kinds (brand, kind, models, promotion, serving)
SELECT DISTINCT ON (m.brand) m.brand, m.kind, m.number, c.id, m.id
FROM models m JOIN model_changes c ON c.model = m.id
ORDER BY m.brand, m.number DESC;

DROP TABLE player_clusters;
