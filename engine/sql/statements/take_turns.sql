-- One at a time in this database, until the end of the transaction: migrations, and commands that grant and revoke, of
-- which two at once on one object end in an error (XX000). A lock of the session would be left behind by a pooler,
-- which gives the session to somebody else.
--
-- $1 lock_timeout text  with unit; how long this and every later lock of the transaction is waited for
--
-- Returns one row. The number is the lock's name, and nothing else may use it but scheduler.grant_rights. The
-- search_path is pinned for what follows: an administrator runs it, and whoever may create in `public` could lay a
-- function of theirs over one of Postgres's.
select pg_catalog.pg_advisory_xact_lock(2026112300)
  from pg_catalog.set_config('lock_timeout', $1, true) lock_timeout,
       pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true) search_path
 where lock_timeout is not null
   and search_path is not null
