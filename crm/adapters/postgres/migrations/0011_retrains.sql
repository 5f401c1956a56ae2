-- Retrains: trainings that the service starts by itself or on request, each once.
CREATE TABLE retrains (
    id         text COLLATE "C" PRIMARY KEY,    -- derived from what asked for it; its Ray job's id too
    brand      text COLLATE "C" NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('clusters', 'churn', 'value')),
    cause      text NOT NULL CHECK (cause IN ('request', 'schedule', 'drift')),
    occasion   text NOT NULL,                   -- a due time, a model that drifted, a client's key
    request    bytea,                           -- SHA-256 of what was asked; NULL: nobody asked
    options    jsonb NOT NULL,
    state      text NOT NULL CHECK (state IN ('queued', 'submitted', 'running', 'done', 'failed')),
    asked_at   timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at   timestamptz,
    reason     text,                            -- why it failed; no values of players
    model      text COLLATE "C",
    promoted   boolean,
    note       text                             -- why the model was promoted, or was not
);
CREATE INDEX retrains_page ON retrains (brand, asked_at DESC, id DESC);
-- Two schedulers, or a scheduler and a request, do not train one thing twice at a time.
CREATE UNIQUE INDEX retrains_one_active ON retrains (brand, kind)
    WHERE state IN ('queued', 'submitted', 'running');

-- Since when a brand's models of a kind have a schedule: what it counts from before the first retrain.
CREATE TABLE retrain_plans (
    brand text COLLATE "C" NOT NULL,
    kind  text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (brand, kind)
);

-- The newest look at how far a model's players are from those that it was trained on.
CREATE TABLE model_drift (
    model text COLLATE "C" PRIMARY KEY,
    at    timestamptz NOT NULL,
    drift jsonb NOT NULL                        -- all of it: a look is read and written whole
);
