-- Take away the job of schedule_purge.sql.
--
-- $1 name text
--
-- Returns jobname, if it was there.
select j.jobname::text as jobname
  from (select jobid, jobname from cron.job where jobname = $1 and database = current_database()) j
 cross join lateral cron.unschedule(j.jobid) gone(is_so)
 where gone.is_so
