-- Verification, and what is kept outside the database for it.

CREATE FUNCTION custody.new_incarnation(reason text) RETURNS uuid
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'custody_new_incarnation';
COMMENT ON FUNCTION custody.new_incarnation(text) IS 'Starts a new life of this database, with a key of its own that the old one vouches for. For a copy that cannot be noticed (a cold clone of the disk); promotions and template copies start one by themselves at their first entry';
