-- The jobs that tick this database, and how each went last. Run as scheduler_cron.
--
-- No parameters. Returns name, schedule, command, active; and of the last time started_at, age in seconds since
-- then, status and message, which are null for a job that never ran. pg_cron's `succeeded` says that invoke ran,
-- and nothing of the answer.
select j.jobname::text as name,
       j.schedule,
       j.command,
       j.active,
       last.start_time as started_at,
       extract(epoch from now() - last.start_time)::double precision as age,
       last.status,
       last.return_message as message
  from cron.job j
  left join lateral (select d.start_time, d.status, d.return_message
                       from cron.job_run_details d
                      where d.jobid = j.jobid
                      order by d.runid desc
                      limit 1) last on true
 where j.username = 'scheduler_cron'
   and j.database = current_database()
 order by j.jobid
