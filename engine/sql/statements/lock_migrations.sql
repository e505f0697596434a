-- One migration at a time in this database, until the end of the transaction. A lock of the session would be
-- left behind by a pooler, which gives the session to somebody else.
--
-- $1 lock_timeout text  with unit; how long this and every later lock of the transaction is waited for
--
-- Returns one row. The number is the lock's name, and nothing else may use it.
select pg_advisory_xact_lock(2026112300)
  from set_config('lock_timeout', $1, true) as lock_timeout
 where lock_timeout is not null
