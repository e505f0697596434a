-- The latest ticks, newest first, and what became of each.
--
-- $1 limit bigint
--
-- Returns id, invoked_at, age in seconds, is_overdue (an answer would be there by this time), scenario_types,
-- answered_at, status_code, error, run_id, and the verdict of that run.
select i.id,
       i.invoked_at,
       extract(epoch from now() - i.invoked_at)::double precision as age,
       i.answered_at is null
         and i.invoked_at < now() - make_interval(secs => coalesce(s.timeout_ms, 45000) / 1000.0 + 15) as is_overdue,
       i.scenario_types,
       i.answered_at,
       i.status_code,
       i.error,
       i.run_id,
       r.verdict
  from scheduler.invocations i
  left join scheduler.settings s on true
  left join scheduler.runs r on r.id = i.run_id
 order by i.invoked_at desc, i.id desc
 limit $1
