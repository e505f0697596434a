-- What the ledger says of one run.
--
-- $1 id    uuid
-- $2 lease double precision  seconds after its last heartbeat for which a run keeps the lease
--
-- Returns the columns of engine/run_record.py, the same as list_runs.sql, which has the reasons; or no row.
select r.id as run_id,
       seen.verdict,
       r.stop_reason,
       r.scenario_types,
       r.evaluated_types,
       case
         when r.is_sharded then
           coalesce((select s.after_id is not null
                       from scheduler.shards s
                      where s.run_id = r.id
                        and s.shard_index = 0),
                    false) -- its shards are gone
         else r.started_after is not null
       end as resumed,
       r.started_at,
       r.heartbeat_at,
       r.finished_at,
       coalesce(r.duration_ms,
                (extract(epoch from greatest(seen.alive_at - r.started_at, '0')) * 1000)::bigint) as duration_ms,
       r.total_active_mentors,
       r.total_evaluated,
       r.total_dispatched,
       r.total_suppressed,
       r.total_errors,
       r.total_unprocessed,
       r.remaining_known,
       r.stretch_mentors,
       r.stretch_evaluated,
       r.dispatched,
       r.suppressed,
       r.errors,
       parts.total_shards,
       parts.total_workers,
       parts.total_redelivered
  from scheduler.runs r
 cross join lateral (
       select r.verdict = 'running' and r.heartbeat_at >= now() - make_interval(secs => $2)) lease(is_held)
 cross join lateral (
       select case when r.verdict = 'running' and not lease.is_held then 'abandoned' else r.verdict end,
              case when lease.is_held then now() else r.heartbeat_at end) seen(verdict, alive_at)
 cross join lateral (
       select coalesce(sum(of_worker.shards), 0)::bigint,
              count(of_worker.worker),
              coalesce(sum(of_worker.redelivered), 0)::bigint
         from (select s.worker, count(*) as shards, count(*) filter (where s.deliveries > 1) as redelivered
                 from scheduler.shards s
                where r.is_sharded
                  and s.run_id = r.id
                group by s.worker) of_worker) parts(total_shards, total_workers, total_redelivered)
 where r.id = $1
