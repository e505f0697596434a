-- The jobs that tick this database, and how each went the last few times. Run as scheduler_cron.
--
-- $1 runs bigint  of each job, at the most
--
-- Returns a row for each of these runs, the latest of a job first, and one for a job that never ran: job_id, name,
-- schedule, command, active, scenario_types (as schedule_tick wrote them into the command; null for every enabled
-- one); and of the run run_id, started_at, age in seconds since then, status and message, all null for a job that
-- never ran. pg_cron's `succeeded` says that invoke ran, and nothing of the answer.
select j.jobid as job_id,
       coalesce(j.jobname::text, format('job %s', j.jobid)) as name,
       j.schedule,
       j.command,
       j.active,
       string_to_array(substring(j.command from 'invoke\(''\{([a-z0-9_,]+)\}''\)'), ',') as scenario_types,
       last.runid as run_id,
       last.start_time as started_at,
       extract(epoch from now() - last.start_time)::double precision as age,
       last.status,
       last.return_message as message
  from cron.job j
  left join lateral (select d.runid, d.start_time, d.status, d.return_message
                       from cron.job_run_details d
                      where d.jobid = j.jobid
                      order by d.runid desc
                      limit $1) last on true
 where j.username = 'scheduler_cron'
   and j.database = current_database()
 order by j.jobid, last.runid desc
