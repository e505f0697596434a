-- Shards: the parts of a run that was carried out by a fleet, a row each, from the plan on.
--
-- Written by plan_shards, claim_shard, record_shard_heartbeat and finish_shard. Whoever works on a shard holds its
-- claim: it is made anew each time the shard is taken, and every write names it and asks that the run still lives,
-- so that a worker that was frozen, or whose run was taken over, writes nothing more.
create table scheduler.shards (
  run_id uuid not null references scheduler.runs on delete cascade,
  shard_index integer not null check (shard_index >= 0),
  -- In this order they were handed out; the next run hands out first what this one left.
  turn integer not null check (turn >= 0),

  -- Its ids: behind the first of these, up to and including the second; null is an end of the id space.
  after_id uuid,
  until_id uuid,
  -- Ids behind this one come first, then those up to it; null: from the lowest to the highest.
  started_after uuid,

  state text not null default 'waiting' check (state in ('waiting', 'running', 'finished')),
  worker text, -- who has it, or had it last
  claim uuid,
  deliveries integer not null default 0 check (deliveries >= 0),
  heartbeat_at timestamptz,
  finished_at timestamptz,
  is_completed boolean not null default false, -- nothing of it was left unprocessed

  -- As in scheduler.runs.
  low_water_mark uuid,
  stretch_mentors bigint not null default 0,
  stretch_evaluated bigint not null default 0 check (stretch_evaluated between 0 and stretch_mentors),
  total_evaluated bigint not null default 0 check (total_evaluated >= 0),
  total_errors bigint not null default 0 check (total_errors >= 0),
  total_unprocessed bigint not null default 0 check (total_unprocessed >= 0),
  total_dispatched bigint not null default 0 check (total_dispatched >= 0),
  total_suppressed bigint not null default 0 check (total_suppressed >= 0),

  covers boolean not null
    generated always as ((is_completed or low_water_mark is not null)
                         and stretch_evaluated * 10 >= stretch_mentors * 9) stored,

  primary key (run_id, shard_index),
  check ((state = 'waiting') = (claim is null)),
  check ((state = 'finished') = (finished_at is not null)),
  check (not is_completed or (state = 'finished' and total_unprocessed = 0))
);
