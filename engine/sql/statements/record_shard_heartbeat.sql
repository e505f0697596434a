-- A worker is at work on a shard, and has come this far.
--
-- $1  run_id            uuid
-- $2  shard_index       integer
-- $3  claim             uuid
-- $4  fence_after       double precision  seconds after its last heartbeat for which a run may act
-- $5  low_water_mark    uuid    null as long as there is none
-- $6  stretch_mentors   bigint  finished without a gap
-- $7  stretch_evaluated bigint  evaluated of those
-- $8  total_evaluated   bigint
-- $9  total_errors      bigint
-- $10 total_unprocessed bigint  fetched, and not finished
-- $11 total_dispatched  bigint
-- $12 total_suppressed  bigint
--
-- Returns run_age, seconds since the run's own heartbeat, and is_wanted, whether another worker has asked for the
-- shard; or no row: another worker has the shard, the run has ended, or it says nothing any more. Then the worker
-- has to stop.
update scheduler.shards s
   set heartbeat_at = now(),
       low_water_mark = $5,
       stretch_mentors = $6,
       stretch_evaluated = $7,
       total_evaluated = $8,
       total_errors = $9,
       total_unprocessed = $10,
       total_dispatched = $11,
       total_suppressed = $12
  from scheduler.runs r
 where s.run_id = $1
   and s.shard_index = $2
   and s.claim = $3
   and s.state = 'running'
   and r.id = s.run_id
   and r.verdict = 'running'
   and r.heartbeat_at >= now() - make_interval(secs => $4)
returning extract(epoch from now() - r.heartbeat_at)::double precision as run_age,
          s.wanted_at is not null as is_wanted
