-- Have pg_cron remove what it kept of our jobs for longer than a week; it removes nothing by itself. Run as who
-- may see all jobs.
--
-- $1 name text
--
-- Returns job_id.
select cron.schedule(
         $1::text,
         '27 3 * * *',
         'delete from cron.job_run_details where coalesce(end_time, start_time) < now() - interval ''7 days'' '
         'and (username = ''scheduler_cron'' or jobid in '
         '(select jobid from cron.job where jobname = ''scenario-scheduler purge''))') as job_id
