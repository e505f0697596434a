-- Take away the jobs of this database that tick, but for some. Run as scheduler_cron.
--
-- $1 kept text[]  names of jobs to leave
--
-- Returns jobname of those taken away.
select j.jobname::text as jobname
  from (select jobid, jobname
          from cron.job
         where username = 'scheduler_cron'
           and database = current_database()
           and (jobname is null or jobname <> all ($1::text[]))) j
 cross join lateral cron.unschedule(j.jobid) gone(is_so)
 where gone.is_so
