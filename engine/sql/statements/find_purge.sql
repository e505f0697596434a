-- Is there the job of schedule_purge.sql?
--
-- $1 name text
--
-- Returns is_there.
select exists (select from cron.job where jobname = $1 and database = current_database() and active) as is_there
