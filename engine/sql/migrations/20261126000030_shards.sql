-- Shards: the parts of a run that is carried out by a fleet, a row each, from the plan on.
--
-- Written by plan_shards, claim_shard, record_shard_heartbeat, finish_shard and withdraw_shards. Whoever works on a
-- shard holds its claim: it is made anew each time the shard is taken, and every write names it, so that a worker
-- that was frozen, and whose shard another one has taken, writes nothing more. To claim a shard, and to go on with
-- it, the run has to live.
create table scheduler.shards (
  run_id uuid not null references scheduler.runs on delete cascade,
  -- In this order they go out: what has waited longest comes first.
  shard_index integer not null check (shard_index >= 0),

  -- Its ids: behind the first of these, up to and including the second; null is an end of the id space.
  after_id uuid,
  until_id uuid,

  state text not null default 'waiting' check (state in ('waiting', 'running', 'finished', 'withdrawn')),
  worker text, -- who has it, or had it last
  claim uuid,
  deliveries integer not null default 0 check (deliveries >= 0),
  claimed_at timestamptz, -- when it was last taken
  heartbeat_at timestamptz,
  wanted_at timestamptz, -- when another worker last asked for it in vain, since it was taken
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

  -- Serves all statements above, previous_shards, list_shards and covering_runs.
  primary key (run_id, shard_index),
  check ((state in ('waiting', 'withdrawn')) = (claim is null)),
  check ((state = 'finished') = (finished_at is not null)),
  check (not is_completed or (state = 'finished' and total_unprocessed = 0))
);

-- Serves claim_shard: the shards of other runs that somebody may still be at.
create index shards_running on scheduler.shards (heartbeat_at) where state = 'running';

alter table scheduler.shards owner to scheduler_owner;
grant select, insert, update, delete on scheduler.shards to scheduler_service;

alter table scheduler.runs
  drop constraint runs_stop_reason_check,
  add constraint runs_stop_reason_check
    check (stop_reason in ('finished', 'soft_threshold', 'hard_deadline', 'draining',
                           'database_unavailable', 'lease_lost', 'fleet_unavailable'));

-- A run with shards has no mark of its own; which stretches it covers is up to each of its shards.
drop index scheduler.runs_covering;
alter table scheduler.runs
  add column is_sharded boolean not null default false,
  drop column covers;
alter table scheduler.runs
  add column covers boolean not null
    generated always as (is_sharded
                         or ((verdict = 'completed' or low_water_mark is not null)
                             and stretch_evaluated * 10 >= stretch_mentors * 9)) stored;

-- Serves covering_runs, newest first.
create index runs_covering on scheduler.runs (started_at desc, id desc) where covers;
