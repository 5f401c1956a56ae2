-- name: take_seqs
-- Locks the counter until the commit: whoever writes next waits, so nothing comes late.
UPDATE fact_streams SET seq = seq + $2 WHERE stream = $1 RETURNING seq;

-- name: tell
-- Facts with the seqs that were taken for them.
INSERT INTO facts (stream, seq, kind, brand, body)
SELECT $1, $2::bigint + place, kind, brand, body::jsonb
FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS given (kind, brand, body, place);

-- name: after
-- What a reader has not seen; a page of the primary key.
SELECT stream, seq, kind, brand, at, body FROM facts
WHERE stream = $1 AND seq > $2
ORDER BY seq
LIMIT $3;

-- name: head
-- Where a reader begins that wants only what comes.
SELECT seq FROM fact_streams WHERE stream = $1;
