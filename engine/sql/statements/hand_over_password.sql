-- Keep a password for set_service_password.sql, until the end of the transaction.
--
-- $1 password text
--
-- Returns one row.
select set_config('scheduler.password', $1, true)
