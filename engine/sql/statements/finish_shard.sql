-- A worker has finished a shard, or come to the end of its budget; what it has to say was handed over.
--
-- $1  run_id            uuid
-- $2  shard_index       integer
-- $3  claim             uuid
-- $4  low_water_mark    uuid    null if there is none, and for a completed shard
-- $5  stretch_mentors   bigint  finished without a gap
-- $6  stretch_evaluated bigint  evaluated of those
-- $7  total_evaluated   bigint
-- $8  total_errors      bigint
-- $9  total_unprocessed bigint
-- $10 total_dispatched  bigint
-- $11 total_suppressed  bigint
-- $12 is_completed      boolean
--
-- Returns shard_index, or no row if the worker has lost the shard.
--
-- Whether the run still lives is not asked: nobody but the holder of the claim may say how far it came, and the
-- run may have merged this very result and ended meanwhile.
update scheduler.shards
   set state = 'finished',
       heartbeat_at = now(),
       finished_at = now(),
       low_water_mark = $4,
       stretch_mentors = $5,
       stretch_evaluated = $6,
       total_evaluated = $7,
       total_errors = $8,
       total_unprocessed = $9,
       total_dispatched = $10,
       total_suppressed = $11,
       is_completed = $12
 where run_id = $1
   and shard_index = $2
   and claim = $3
   and state = 'running'
returning shard_index
