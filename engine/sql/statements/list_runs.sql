-- What the ledger says of the latest runs, newest first.
--
-- $1 before uuid              of the run at which the page before this one ended, null for the first page
-- $2 limit  bigint            rows at most
-- $3 lease  double precision  seconds after its last heartbeat for which a run keeps the lease
--
-- Returns the columns of engine/run_record.py, the same as find_run.sql. Not started_after and low_water_mark,
-- which are ids of mentors: this is for answers.
--
-- A running row whose lease is over is abandoned already, though no next run has come to write it down. One
-- that nobody ended lasted until its last heartbeat, as far as anybody knows; `greatest` is for a run that
-- began between now(), which is when this transaction did, and what this statement sees.
--
-- A run in shards was resumed if the first that went out does not begin at the lowest id.
-- The shards are looked at for the runs of the page alone, and among these for those that have any.
--
-- Where `before` stood is looked up in the index that its page is read from, so a page costs the same wherever
-- it is. A run that is gone has no place, and no comparison with none is true: an empty page. It is the right
-- one, because finish_run removes the oldest first.
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
       select r.verdict = 'running' and r.heartbeat_at >= now() - make_interval(secs => $3)) lease(is_held)
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
 where (r.started_at, r.id)
       < (case when $1::uuid is null
               then 'infinity'
               else (select b.started_at from scheduler.runs b where b.id = $1)
          end,
          coalesce($1, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 order by r.started_at desc, r.id desc
 limit $2
