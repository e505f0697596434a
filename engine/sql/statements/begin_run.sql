-- Begin a run: take the lease, or learn who holds it.
--
-- $1 id             uuid              of the new run
-- $2 scenario_types text[]            in order; null for every enabled one
-- $3 hard_deadline  double precision  seconds from now, for whoever is refused meanwhile
-- $4 lease          double precision  seconds after its last heartbeat for which a run keeps the lease
--
-- Returns one row: is_begun; if so, started_after, and abandoned_id of the run it was taken over from; if
-- not, retry_after, the seconds left of the holder's budget, null for a holder that began this very moment.
--
-- The check and the insert are one: the partial unique index runs_one_running. The count makes the insert wait
-- for the take-over, which frees its place in that index. Who loses to a run that ends in the same moment may
-- start at the mark of its last heartbeat instead of its last mark: a second is walked again, nobody is missed.
--
-- The latest run of the same types is found as the last entry of an index up to theirs. Asked for with `=`, a
-- generic plan goes back through all runs instead: 921 pages among 20,000 runs for types that never ran.
with abandoned as (
  update scheduler.runs
     set verdict = 'abandoned'
   where verdict = 'running'
     and heartbeat_at < now() - make_interval(secs => $4)
  returning id),
previous as (
  select latest.started_after, latest.low_water_mark
    from (select *
            from scheduler.runs
           where coalesce(scenario_types, '{}') <= coalesce($2::text[], '{}')
           order by coalesce(scenario_types, '{}') desc, started_at desc, id desc
           limit 1) latest
   where coalesce(latest.scenario_types, '{}') = coalesce($2::text[], '{}')
     and latest.verdict <> 'completed'),
begun as (
  insert into scheduler.runs (id, scenario_types, evaluated_types, hard_deadline_at, started_after)
  select $1::uuid,
         $2::text[],
         coalesce($2::text[],
                  (select array_agg(c.scenario_type order by c.scenario_type)
                     from scheduler.scenario_evaluation_config c
                    where c.enabled),
                  '{}'),
         now() + make_interval(secs => $3),
         (select coalesce(p.low_water_mark, p.started_after) from previous p)
    from (select count(*) from abandoned) taken_over
      on conflict do nothing
  returning id, started_after)
select begun.id is not null as is_begun,
       begun.started_after,
       (select a.id from abandoned a) as abandoned_id,
       (select extract(epoch from r.hard_deadline_at - clock_timestamp())::double precision
          from scheduler.runs r
         where r.verdict = 'running'
           and begun.id is null) as retry_after
  from (values (true)) always
  left join begun on true
