-- Write down the shards of a run, before the first of them goes out.
--
-- $1 run_id    uuid
-- $2 after_ids uuid[]            in the order in which they go out; null is the lower end of the id space
-- $3 until_ids uuid[]            of the same shards; null is the upper end
-- $4 retention double precision  seconds for which the shards of runs are kept
--
-- Returns at: this moment, in seconds since 1970 on this clock, which the shards' budget goes by; no row if the
-- run has lost its lease. Planned twice, as when the first answer was lost, it stays with the first plan, which
-- was the same.
--
-- Old shards go with those of the runs that came of age within the last day: a range of an index, and none of it
-- is read again and again. What a longer pause leaves goes with its run.
with planned as (
  update scheduler.runs
     set is_sharded = true
   where id = $1
     and verdict = 'running'
  returning id),
shards as (
  insert into scheduler.shards (run_id, shard_index, after_id, until_id)
  select p.id, s.number - 1, s.after_id, s.until_id
    from planned p
   cross join unnest($2::uuid[], $3::uuid[]) with ordinality s(after_id, until_id, number)
      on conflict do nothing),
removed as (
  delete from scheduler.shards s
   using scheduler.runs r
   where r.started_at < now() - make_interval(secs => $4)
     and r.started_at > now() - make_interval(secs => $4, days => 1)
     and r.is_sharded
     and s.run_id = r.id)
select extract(epoch from now())::double precision as at from planned
