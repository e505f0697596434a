-- The next page of the runs whose stretch counts as covered, newest first, for some scenarios.
--
-- $1 started_at     timestamptz  of the last run on the page before; null for the first page
-- $2 id             uuid         of that run; null for the first page
-- $3 scenario_types text[]       runs that evaluated none of these are left out
-- $4 page_size      bigint
--
-- Returns id, started_at, age in seconds since then, is_completed, started_after, low_water_mark,
-- evaluated_types.
--
-- `case` keeps the planner from guessing how many runs evaluated these scenarios. Where it guesses few, as on a
-- table never analyzed, it sorts the whole ledger for every page: among 43,000 runs, 1,700 buffers instead of 6.
-- A scenario that none of these evaluated costs one look at each of them, 20 ms.
select id,
       started_at,
       greatest(extract(epoch from now() - started_at), 0)::double precision as age,
       verdict = 'completed' as is_completed,
       started_after,
       low_water_mark,
       evaluated_types
  from scheduler.runs
 where covers
   and (started_at, id) < (coalesce($1, 'infinity'::timestamptz),
                           coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
   and case when evaluated_types && $3 then true else false end
 order by started_at desc, id desc
 limit $4
