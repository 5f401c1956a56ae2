-- What the client stated where an amount was converted: a rate that is corrected later does not
-- change what was taken in, and this says what it was made of. NULL in the brand's own currency.
-- On the parents, and so on all their partitions: nullable and without a default, no row is touched.
ALTER TABLE user_transactions
    ADD COLUMN original_amount numeric,
    ADD COLUMN original_currency text COLLATE "C";
ALTER TABLE user_sessions
    ADD COLUMN original_amount numeric,
    ADD COLUMN original_currency text COLLATE "C";
