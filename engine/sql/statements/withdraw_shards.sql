-- No shard of this run that was not begun is to be begun any more.
--
-- $1 run_id uuid
--
-- Returns shard_index of those that were not begun, now or when this was asked for before. Of all others some
-- worker has begun, so what these say is worth waiting for.
with withdrawn as (
  update scheduler.shards
     set state = 'withdrawn'
   where run_id = $1
     and state = 'waiting'
  returning shard_index)
select shard_index from withdrawn
 union
select shard_index
  from scheduler.shards
 where run_id = $1
   and state = 'withdrawn'
 order by shard_index
