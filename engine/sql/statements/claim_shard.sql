-- Take a shard, or learn why not.
--
-- $1  run_id           uuid
-- $2  shard_index      integer
-- $3  after_id         uuid              what the message says of it; null is an end of the id space
-- $4  until_id         uuid
-- $5  scenario_types   text[]
-- $6  hard_deadline_at double precision  seconds since 1970 on this clock
-- $7  worker           text
-- $8  claim            uuid              new, of this worker for this shard
-- $9  ack_wait         double precision  seconds after whose last heartbeat a shard may be taken from its worker
-- $10 fence_after      double precision  seconds after its last heartbeat for which a run may act
--
-- Returns one row: outcome; at, this moment in seconds since 1970; run_age, seconds since the run's heartbeat;
-- held_for, seconds until a shard that is held may be taken, null if nobody is at any.
-- Outcomes: claimed; unknown (no such run, or no such shard of it); contradicted (the message says what the
-- ledger does not); ended (the run has its verdict, was taken over, or says nothing any more); finished;
-- withdrawn; held (by a worker that lives, or a worker that lives is still at a shard of another run).
--
-- The check and the claim are one: of two at once, the second waits for the row and then finds it claimed. A run
-- is asked for as it was when this began; who takes it over has to wait for two seconds longer than that is old.
-- Who holds a shard is told that it is wanted, with its next heartbeat.
--
-- A run can end while a worker is at one of its shards, which learns it with its next heartbeat: where the run
-- failed, or where the shard is done again by a second worker although the first one had told its result. No
-- shard of the next run begins before every such worker has stopped, or has had to.
with run as (
  select r.id,
         r.verdict = 'running' and r.heartbeat_at >= now() - make_interval(secs => $10) as is_alive,
         r.scenario_types is not distinct from $5::text[]
           and extract(epoch from r.hard_deadline_at) >= $6::double precision - 1 as agrees,
         extract(epoch from now() - r.heartbeat_at)::double precision as age
    from scheduler.runs r
   where r.id = $1),
others as (
  select max(s.heartbeat_at) as heartbeat_at
    from scheduler.shards s
   where s.state = 'running'
     and s.run_id <> $1
     and s.heartbeat_at > now() - make_interval(secs => $9)),
claimed as (
  update scheduler.shards s
     set state = 'running',
         worker = $7,
         claim = $8,
         deliveries = s.deliveries + case when s.claim = $8 then 0 else 1 end,
         claimed_at = case when s.claim = $8 then s.claimed_at else now() end,
         wanted_at = null,
         heartbeat_at = now()
    from run, others
   where s.run_id = run.id
     and others.heartbeat_at is null
     and s.shard_index = $2
     and run.is_alive
     and run.agrees
     and s.after_id is not distinct from $3::uuid
     and s.until_id is not distinct from $4::uuid
     and (s.state = 'waiting'
          or s.state = 'running' and s.heartbeat_at <= now() - make_interval(secs => $9)
          or s.state = 'running' and s.claim = $8) -- whose first answer was lost
  returning s.run_id),
wanted as ( -- of two updates of one row in one statement, only this one or that above finds it
  update scheduler.shards s
     set wanted_at = now()
   where s.run_id = $1
     and s.shard_index = $2
     and s.state = 'running'
     and s.claim <> $8
     and s.heartbeat_at > now() - make_interval(secs => $9))
select case
         when claimed.run_id is not null then 'claimed'
         when s.run_id is null then 'unknown'
         when not run.agrees
              or s.after_id is distinct from $3::uuid
              or s.until_id is distinct from $4::uuid then 'contradicted'
         when not run.is_alive then 'ended'
         when s.state in ('finished', 'withdrawn') then s.state
         else 'held'
       end as outcome,
       extract(epoch from now())::double precision as at,
       run.age as run_age,
       extract(epoch from greatest(case when s.state = 'running' then s.heartbeat_at end, others.heartbeat_at)
                          - now())::double precision + $9 as held_for
  from others
  left join run on true
  left join scheduler.shards s on s.run_id = run.id and s.shard_index = $2
  left join claimed on true
