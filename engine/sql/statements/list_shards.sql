-- What the ledger says of the shards of one run, in the order in which they go out.
--
-- $1 run_id   uuid
-- $2 ack_wait double precision  seconds after its last heartbeat for which a worker keeps a shard
--
-- Returns the columns of engine/shard_record.py. Not after_id, until_id and low_water_mark, which are ids of
-- mentors: this is for answers.
--
-- A running shard whose worker is silent is lost already, though no other worker has come to take it. `greatest`
-- is for what was written between now(), which is when this transaction began, and what this statement sees.
select s.shard_index,
       seen.state,
       s.worker,
       s.deliveries,
       s.heartbeat_at,
       extract(epoch from greatest(now(), s.heartbeat_at) - s.heartbeat_at)::double precision as heartbeat_age,
       s.finished_at,
       (extract(epoch from greatest(seen.alive_at, s.claimed_at) - s.claimed_at) * 1000)::bigint as duration_ms,
       s.is_completed,
       counted.total_active_mentors,
       s.total_evaluated,
       s.total_dispatched,
       s.total_suppressed,
       s.total_errors,
       s.total_unprocessed,
       coalesce(counted.total_active_mentors
                / nullif(sum(counted.total_active_mentors) over (), 0), 0)::double precision as share
  from scheduler.shards s
 cross join lateral (
       select s.state = 'running' and s.heartbeat_at < now() - make_interval(secs => $2)) worker(is_silent)
 cross join lateral (
       select case when worker.is_silent then 'lost' else s.state end,
              case when s.state = 'running' and not worker.is_silent
                   then now()
                   else s.heartbeat_at
              end) seen(state, alive_at)
 cross join lateral (
       select s.total_evaluated + s.total_errors + s.total_unprocessed) counted(total_active_mentors)
 where s.run_id = $1
 order by s.shard_index
