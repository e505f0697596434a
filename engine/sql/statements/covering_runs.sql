-- The next page of the runs of which something counts as covered, newest first, for some scenarios.
--
-- $1 started_at     timestamptz  of the last run on the page before; null for the first page
-- $2 id             uuid         of that run; null for the first page
-- $3 scenario_types text[]       runs that evaluated none of these are left out
-- $4 page_size      bigint
--
-- Returns id, started_at, age in seconds since then, is_completed, started_after, low_water_mark,
-- evaluated_types; and of a run with shards, after_ids and until_ids of the stretches that these have covered,
-- null where none has.
--
-- A completed run is so as a whole, unless more than a tenth of it were errors: then it is up to each shard. The
-- shards of a run are one range of their primary key, looked at for the runs of this page alone.
--
-- `case` keeps the planner from guessing how many runs evaluated these scenarios. Where it guesses few, as on a
-- table never analyzed, it sorts the whole ledger for every page: among 43,000 runs, 1,700 buffers instead of 6.
-- A scenario that none of these evaluated costs one look at each of them, 20 ms.
select r.id,
       r.started_at,
       greatest(extract(epoch from now() - r.started_at), 0)::double precision as age,
       r.verdict = 'completed' and r.stretch_evaluated * 10 >= r.stretch_mentors * 9 as is_completed,
       r.started_after,
       r.low_water_mark,
       r.evaluated_types,
       case when r.is_sharded then
         (select array_agg(s.after_id order by s.shard_index)
            from scheduler.shards s
           where s.run_id = r.id
             and s.covers)
       end as after_ids,
       case when r.is_sharded then
         (select array_agg(case when s.is_completed then s.until_id else s.low_water_mark end order by s.shard_index)
            from scheduler.shards s
           where s.run_id = r.id
             and s.covers)
       end as until_ids
  from scheduler.runs r
 where r.covers
   and (r.started_at, r.id) < (coalesce($1, 'infinity'::timestamptz),
                               coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
   and case when r.evaluated_types && $3 then true else false end
 order by r.started_at desc, r.id desc
 limit $4
