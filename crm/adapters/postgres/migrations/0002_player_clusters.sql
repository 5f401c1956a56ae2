-- Trained player clusters, kept for ever; the newest of a brand is the one in use.
CREATE TABLE player_clusters (
    id         text COLLATE "C" PRIMARY KEY,
    brand      text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    model      jsonb NOT NULL               -- all of it: a model is read and written whole
);
CREATE INDEX player_clusters_newest ON player_clusters (brand, created_at DESC, id DESC);
