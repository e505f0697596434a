-- Since when is a scenario enabled? A run that began before was, or may have been, without it for a part of its walk.
--
-- The run says when it begins which scenarios it evaluates. One that is disabled in mid-run, and enabled again, was
-- not evaluated for those who were walked in between, though the run goes on to its end and is completed.

alter table scheduler.scenario_evaluation_config
  add column enabled_since timestamptz; -- null: ever since this column was added

create function scheduler.note_enabled_since()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Not now(): a transaction that waited for the row has begun before the row was what it finds.
  new.enabled_since := clock_timestamp();
  return new;
end $$;

alter function scheduler.note_enabled_since owner to scheduler_owner;
revoke all on function scheduler.note_enabled_since from public;

create trigger enabled_anew
before update of enabled on scheduler.scenario_evaluation_config
   for each row when (new.enabled and not old.enabled)
execute function scheduler.note_enabled_since();

create trigger enabled_at_once
before insert on scheduler.scenario_evaluation_config
   for each row when (new.enabled)
execute function scheduler.note_enabled_since();
