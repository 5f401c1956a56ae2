-- What a brand's events were taken in under: its minor units and its days stand in the log for ever.
CREATE TABLE brands (
    id        text COLLATE "C" PRIMARY KEY,
    currency  text NOT NULL,
    decimals  smallint NOT NULL,
    time_zone text NOT NULL
);
