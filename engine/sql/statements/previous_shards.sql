-- The shards of the run before this one of the same scenario types, if it left something and had shards.
--
-- $1 run_id uuid  of this run
--
-- Returns after_id, until_id, low_water_mark, is_completed, in the order in which they went out; no row where the
-- run before was completed, had no shards, or never was.
--
-- It is looked up as begin_run does, as the last entry of the index before this one's own. Runs that ended before
-- they had a plan, or finished anything, change nothing: those before them are looked at instead, as far back as
-- three days of ticks every five minutes. Each costs one entry of the index and its row.
with this as (
  select r.id, r.scenario_types, r.started_at
    from scheduler.runs r
   where r.id = $1),
previous as (
  select latest.id
    from this
   cross join lateral (
         select r.id, r.scenario_types, r.verdict
           from (select *
                   from scheduler.runs
                  where (coalesce(scenario_types, '{}'), started_at, id)
                        < (coalesce(this.scenario_types, '{}'), this.started_at, this.id)
                  order by coalesce(scenario_types, '{}') desc, started_at desc, id desc
                  limit 1000) r
          where r.is_sharded
             or r.low_water_mark is not null
             or r.verdict = 'completed'
             or coalesce(r.scenario_types, '{}') <> coalesce(this.scenario_types, '{}')
          order by coalesce(r.scenario_types, '{}') desc, r.started_at desc, r.id desc
          limit 1) latest
   where coalesce(latest.scenario_types, '{}') = coalesce(this.scenario_types, '{}')
     and latest.verdict <> 'completed')
select s.after_id, s.until_id, s.low_water_mark, s.is_completed
  from previous p
  join scheduler.shards s on s.run_id = p.id
 order by s.shard_index
