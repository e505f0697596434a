-- Until the end of the transaction, names without a schema are Postgres's own: an administrator runs what follows,
-- and whoever may create in `public` could lay a function of theirs over one of Postgres's. No parameters.
--
-- Returns one row.
select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)
