-- Take away the job of schedule_purge.sql. pg_cron knows jobs by name and user.
--
-- $1 name   text   
-- $2 is_own boolean  this administrator's, or else those of others, as far as this one can see them
--
-- Returns jobname, of each that was there. pg_cron refuses to take away another's job, but to a superuser.
select j.jobname::text as jobname
  from (select jobid, jobname
          from cron.job
         where jobname = $1
           and database = current_database()
           and (username = current_user) = $2::boolean) j
 cross join lateral cron.unschedule(j.jobid) gone(is_so)
 where gone.is_so
