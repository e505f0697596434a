-- Keep the tables of the user for try_as_service.sql and try_as_cron.sql, until the end of the transaction.
--
-- $1 sources oid[]
--
-- Returns one row.
select set_config('scheduler.sources', $1::oid[]::text, true)
