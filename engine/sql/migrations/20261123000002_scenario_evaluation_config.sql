-- Which scenarios there are, and how each is evaluated: one row each.
--
-- A scenario of one's own is a row here and a function of the shape described beside the shipped ones.
create table scheduler.scenario_evaluation_config (
  -- 54 characters: with 'scenario_' before it, it names a function, and Postgres cuts names at 63.
  scenario_type text primary key check (scenario_type ~ '^[a-z][a-z0-9_]{0,53}$'),
  enabled boolean not null default true,
  -- What the function is given. Holds every parameter the function knows, because an override of any other
  -- is refused as a slip of the pen.
  params jsonb not null default '{}' check (jsonb_typeof(params) = 'object'),
  -- At least a day: then a cooldown that has passed can't meet the notification of the same UTC day.
  cooldown interval not null check (cooldown >= '1 day'),
  -- Of the last run; null before the first.
  last_run_evaluated bigint check (last_run_evaluated >= 0),
  last_run_dispatched bigint check (last_run_dispatched >= 0),
  last_run_suppressed bigint check (last_run_suppressed >= 0)
);

insert into scheduler.scenario_evaluation_config (scenario_type, params, cooldown)
values ('inactivity', '{"days": 14}', '7 days'),
       ('milestone', '{"counts": [10, 25, 50]}', '1 day'),
       ('expiry', '{"days": 7}', '7 days');
