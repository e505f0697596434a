-- What the ledger says of the shards of one run, in the order in which they went out.
--
-- $1 run_id uuid
--
-- Returns the columns of engine/shard_record.py. Not after_id, until_id and low_water_mark, which are ids of
-- mentors: this is for answers.
select s.shard_index,
       s.state,
       s.worker,
       s.deliveries,
       s.heartbeat_at,
       s.finished_at,
       s.is_completed,
       s.total_evaluated,
       s.total_errors,
       s.total_unprocessed,
       s.total_dispatched,
       s.total_suppressed
  from scheduler.shards s
 where s.run_id = $1
 order by s.shard_index
