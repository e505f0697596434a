-- The ledger: a row for every run, from its beginning on. A dry run leaves none.
--
-- Written by begin_run, record_heartbeat and finish_run, one statement each; whatever writes to a row says
-- `where id = … and verdict = 'running'`, so that a run whose row was taken from it writes nothing more.
create table scheduler.runs (
  id uuid primary key, -- UUIDv7, made by the service
  verdict text not null default 'running'
    check (verdict in ('running', 'completed', 'partial', 'failed', 'abandoned')),
  stop_reason text
    check (stop_reason in ('finished', 'soft_threshold', 'hard_deadline', 'draining',
                           'database_unavailable', 'lease_lost')),
  -- As asked for, in order, null for every enabled one. Runs of the same hand the low-water mark on.
  scenario_types text[],
  -- What it evaluates: those asked for, or those that were enabled when it began.
  evaluated_types text[] not null,

  started_at timestamptz not null default now(),
  -- When the service last said that the run lives. Older than the lease, and the next run takes over.
  heartbeat_at timestamptz not null default now(),
  finished_at timestamptz,
  hard_deadline_at timestamptz not null,
  duration_ms bigint check (duration_ms >= 0), -- on the service's clock

  -- Ids behind this one come first, then those up to it; null: from the lowest to the highest.
  started_after uuid,
  -- The last id of the stretch without a gap that was finished, evaluated or error; null: none was, or all.
  low_water_mark uuid,
  -- How many mentors that stretch holds, and how many of them were evaluated.
  stretch_mentors bigint not null default 0,
  stretch_evaluated bigint not null default 0 check (stretch_evaluated between 0 and stretch_mentors),

  total_evaluated bigint not null default 0 check (total_evaluated >= 0),
  total_errors bigint not null default 0 check (total_errors >= 0),
  total_unprocessed bigint not null default 0 check (total_unprocessed >= 0),
  total_active_mentors bigint not null
    generated always as (total_evaluated + total_errors + total_unprocessed) stored,
  remaining_known boolean not null default false,
  total_dispatched bigint not null default 0 check (total_dispatched >= 0),
  total_suppressed bigint not null default 0 check (total_suppressed >= 0),
  -- The same by scenario type, and the errors by their class: {"inactivity": 12}.
  dispatched jsonb not null default '{}' check (jsonb_typeof(dispatched) = 'object'),
  suppressed jsonb not null default '{}' check (jsonb_typeof(suppressed) = 'object'),
  errors jsonb not null default '{}' check (jsonb_typeof(errors) = 'object'),

  -- Does the stretch count as covered? Not if more than a tenth of it were errors, as with a dead engine.
  covers boolean not null
    generated always as ((verdict = 'completed' or low_water_mark is not null)
                         and stretch_evaluated * 10 >= stretch_mentors * 9) stored,

  check ((verdict in ('running', 'abandoned')) = (finished_at is null)),
  check ((verdict in ('completed', 'partial')) = (stop_reason is not null)),
  check ((verdict = 'completed') = (stop_reason is not null and stop_reason = 'finished')),
  check (verdict <> 'completed' or (low_water_mark is null and total_unprocessed = 0 and remaining_known))
);

-- One running row per database: the lease that makes a run the only one.
create unique index runs_one_running on scheduler.runs ((true)) where verdict = 'running';

-- Serves begin_run: the latest run of the same scenario types.
create index runs_scenario_types on scheduler.runs (coalesce(scenario_types, '{}'), started_at, id);

-- Serves list_runs, newest first, and the end of those that finish_run removes.
create index runs_started_at on scheduler.runs (started_at desc, id desc);

-- Serves covering_runs, newest first.
create index runs_covering on scheduler.runs (started_at desc, id desc) where covers;
