-- What went out, and until when nothing goes out again. Written by scheduler.evaluate alone.

-- A window begins when a notification is sent and lasts for the scenario's cooldown. It slides with what was
-- sent: windows rounded to the clock would let two through back to back, at the edge between them.
create table scheduler.cooldowns (
  user_id uuid,
  scenario_type text,
  cooldown_window_start timestamptz not null,
  primary key (user_id, scenario_type)
);

create table scheduler.notifications (
  id bigint generated always as identity primary key,
  mentor_id uuid not null,
  user_id uuid not null,
  scenario_type text not null,
  cooldown_window_start timestamptz not null,
  evaluation_date date not null, -- in UTC
  payload jsonb not null,
  run_id uuid, -- of the run that sent it; null if nobody named one
  created_at timestamptz not null default now(),
  -- Behind the cooldown: neither twice in a window nor twice on a day, whatever happens to the cooldown's row.
  unique (user_id, scenario_type, cooldown_window_start),
  unique (user_id, scenario_type, evaluation_date)
);

-- Serves scheduler.evaluate: what has this run sent to these mentors already?
create index notifications_run_id_mentor_id
    on scheduler.notifications (run_id, mentor_id)
 where run_id is not null;
