-- A ratio as the features have it: in doubles step by step, bounded, rounded half to even.
CREATE FUNCTION ratio(top float8, bottom float8, scale float8) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN bottom <> 0 THEN least(1e15, round(top / bottom * scale))::bigint END $$;
