-- A run has ended: its verdict and its last counts, which gives the lease back.
--
-- $1  id                uuid
-- $2  low_water_mark    uuid     null if there is none, and for a completed run
-- $3  stretch_mentors   bigint   finished without a gap
-- $4  stretch_evaluated bigint   evaluated of those
-- $5  total_evaluated   bigint
-- $6  total_errors      bigint
-- $7  total_unprocessed bigint
-- $8  total_dispatched  bigint
-- $9  total_suppressed  bigint
-- $10 dispatched        jsonb    by scenario type
-- $11 suppressed        jsonb    by scenario type
-- $12 errors            jsonb    by class
-- $13 verdict           text     completed, partial, failed
-- $14 stop_reason       text     null for a failed run
-- $15 remaining_known   boolean  total_unprocessed is no lower bound
-- $16 duration_ms       bigint
-- $17 retention         double precision  seconds for which the rows of runs are kept
--
-- Returns id, or no row if the run has lost its lease; then nothing else was written either. A second try,
-- because the answer to the first was lost after it took effect, finds its own verdict there, and has lost nothing.
--
-- Somebody at work on a scenario's row is not waited for: the counts of that scenario are then the next run's
-- to bring. Old rows go a thousand at a time, so that a long pause does not cost one run all of them.
with finished as (
  update scheduler.runs
     set verdict = $13,
         stop_reason = $14,
         finished_at = now(),
         heartbeat_at = now(),
         low_water_mark = $2,
         stretch_mentors = $3,
         stretch_evaluated = $4,
         total_evaluated = $5,
         total_errors = $6,
         total_unprocessed = $7,
         total_dispatched = $8,
         total_suppressed = $9,
         dispatched = $10,
         suppressed = $11,
         errors = $12,
         remaining_known = $15,
         duration_ms = $16
   where id = $1
     and verdict = 'running'
  returning id, evaluated_types, total_evaluated, dispatched, suppressed),
unlocked as (
  select c.scenario_type
    from scheduler.scenario_evaluation_config c
    join finished f on c.scenario_type = any (f.evaluated_types)
   order by c.scenario_type
     for update of c skip locked),
counted as (
  update scheduler.scenario_evaluation_config c
     set last_run_evaluated = f.total_evaluated,
         last_run_dispatched = coalesce((f.dispatched ->> c.scenario_type)::bigint, 0),
         last_run_suppressed = coalesce((f.suppressed ->> c.scenario_type)::bigint, 0)
    from finished f, unlocked u
   where c.scenario_type = u.scenario_type),
removed as (
  delete from scheduler.runs r
   using (select o.id
            from scheduler.runs o, finished
           where o.started_at < now() - make_interval(secs => $17)
             and o.verdict <> 'running'
           order by o.started_at
           limit 1000) old
   where r.id = old.id)
select id from finished
 union all
select id from scheduler.runs where id = $1 and verdict = $13
