-- The shipped scenarios: who of these mentors is due, and what is there to tell them?
--
-- Every scenario is a function of this shape, named scheduler.scenario_<type>, and keeps these rules:
-- - one row for a mentor who is due, none for any other; only for the mentors given, and only active ones;
-- - whether the mentor was told lately is left to the cooldown;
-- - a day is a day in UTC, whatever the session's time zone;
-- - written in SQL, stable, not strict and without settings, so that Postgres inlines it into
--   scheduler.evaluate and plans it for the mentors and params at hand.
--
-- `offset 0` keeps Postgres from turning a look at one mentor's rows into a join, which may read everybody's.

-- No activity for params.days; a mentor newer than that is not due.
create function scheduler.scenario_inactivity(mentor_ids uuid[], as_of timestamptz, params jsonb)
returns table (mentor_id uuid, user_id uuid, payload jsonb)
language sql stable
as $$
  select m.id,
         m.user_id,
         jsonb_build_object(
           'last_activity',
           (select max(a.activity_date) from scheduler.activities a where a.user_id = m.user_id))
    from scheduler.mentors m
   where m.id = any (mentor_ids)
     and m.status = 'active'
     -- A mentor whose age is not known is not a new one.
     and (m.created_at < as_of - make_interval(days => (params ->> 'days')::int)) is not false
     and not exists (select
                       from scheduler.activities a
                      where a.user_id = m.user_id
                        and a.activity_date >= (as_of at time zone 'utc')::date - (params ->> 'days')::int
                     offset 0)
$$;

-- The highest of params.counts that was reached, unless it or a higher one was notified before.
create function scheduler.scenario_milestone(mentor_ids uuid[], as_of timestamptz, params jsonb)
returns table (mentor_id uuid, user_id uuid, payload jsonb)
language sql stable
as $$
  select m.id, m.user_id, jsonb_build_object('milestone', reached.milestone)
    from scheduler.mentors m
   -- Counts no further than matters: a mentor with ten thousand activities costs no more than one with fifty.
   cross join lateral (
           select count(*) as activities
             from (select
                     from scheduler.activities a
                    where a.user_id = m.user_id
                    limit (select max(c::int) from jsonb_array_elements_text(params -> 'counts') c)) a) counted
   cross join lateral (
           select max(c::int) as milestone
             from jsonb_array_elements_text(params -> 'counts') c
            where c::int <= counted.activities) reached
   where m.id = any (mentor_ids)
     and m.status = 'active'
     -- Implied by the next line, and checked before the counts are gone through for this mentor.
     and counted.activities >= (select min(c::int) from jsonb_array_elements_text(params -> 'counts') c)
     and reached.milestone is not null
     and not exists (select
                       from scheduler.notifications n
                      where n.user_id = m.user_id
                        and n.scenario_type = 'milestone'
                        and (n.payload ->> 'milestone')::int >= reached.milestone
                     offset 0)
$$;

-- An active assignment ends within params.days, today included; the soonest of them.
create function scheduler.scenario_expiry(mentor_ids uuid[], as_of timestamptz, params jsonb)
returns table (mentor_id uuid, user_id uuid, payload jsonb)
language sql stable
as $$
  select m.id, m.user_id, jsonb_build_object('expires_at', ending.soonest)
    from scheduler.mentors m
   cross join lateral (
           select min(a.expires_at) as soonest
             from scheduler.assignments a
            where a.mentor_id = m.id
              and a.status = 'active'
              and a.expires_at >= (as_of at time zone 'utc')::date
              and a.expires_at <= (as_of at time zone 'utc')::date + (params ->> 'days')::int) ending
   where m.id = any (mentor_ids)
     and m.status = 'active'
     and ending.soonest is not null
$$;

revoke all on function scheduler.scenario_inactivity, scheduler.scenario_milestone, scheduler.scenario_expiry
  from public;

-- An enabled scenario has its function: without it every chunk of every run would fail, for all scenarios.
create function scheduler.check_scenario_function()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant text :=
    format('scheduler.%I(uuid[], timestamptz, jsonb)', 'scenario_' || new.scenario_type);
begin
  if to_regprocedure(wanted) is null then
    raise undefined_function
      using message = format('the scenario %s has no function %s', new.scenario_type, wanted),
            hint = 'Create the function first, or insert the row with enabled = false.';
  end if;
  return null;
end $$;

revoke all on function scheduler.check_scenario_function from public;

create trigger scenario_function_exists
 after insert or update of scenario_type, enabled on scheduler.scenario_evaluation_config
   for each row when (new.enabled)
execute function scheduler.check_scenario_function();
