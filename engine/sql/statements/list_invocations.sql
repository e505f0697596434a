-- The latest ticks, newest first, and what became of each; of each job, however long ago, the latest tick and the
-- latest two of which it is known what became.
--
-- $1 limit bigint  of all jobs together
-- $2 jobs  text[]  the scenario types of each job, written as an array; null for every enabled one
--
-- Returns id, invoked_at, age in seconds, is_overdue (an answer would be there by this time), scenario_types,
-- answered_at, status_code, error, run_id, and the verdict of that run, null if it is not in this ledger.
with overdue as (
  select now() - make_interval(
    secs => coalesce((select s.timeout_ms from scheduler.settings s), 45000) / 1000.0 + 15) as before
),
looked_at as (
  (select i.id from scheduler.invocations i order by i.invoked_at desc, i.id desc limit $1)
  union
  select latest.id
    from unnest($2::text[]) job(types)
   cross join lateral (select i.id
                         from scheduler.invocations i
                        where i.scenario_types is not distinct from job.types::text[]
                        order by i.invoked_at desc, i.id desc
                        limit 1) latest
  union
  select settled.id
    from unnest($2::text[]) job(types)
   cross join lateral (select i.id
                         from scheduler.invocations i
                        where i.scenario_types is not distinct from job.types::text[]
                          and (i.answered_at is not null or i.invoked_at < (select o.before from overdue o))
                        order by i.invoked_at desc, i.id desc
                        limit 2) settled
)
select i.id,
       i.invoked_at,
       extract(epoch from now() - i.invoked_at)::double precision as age,
       i.answered_at is null and i.invoked_at < (select o.before from overdue o) as is_overdue,
       i.scenario_types,
       i.answered_at,
       i.status_code,
       i.error,
       i.run_id,
       r.verdict
  from scheduler.invocations i
  left join scheduler.runs r on r.id = i.run_id
 where i.id in (select l.id from looked_at l)
 order by i.invoked_at desc, i.id desc
