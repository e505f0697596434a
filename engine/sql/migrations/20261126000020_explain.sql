-- Why does each scenario fire for one mentor, or why not? Asks, and writes nothing.
--
-- A scenario may have, beside its function, one that tells what was compared with what:
-- scheduler.explain_<type>(mentor_id uuid, as_of timestamptz, params jsonb) returns jsonb, an object of facts of
-- any names. One of the name `words`, a sentence or a list of them, is shown to people in place of the others. Of a
-- scenario without such a function only its payload is told.

create function scheduler.explain_inactivity(mentor_id uuid, as_of timestamptz, params jsonb)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
           'last_activity', seen.last_activity,
           'none_since', wanted.first_day,
           'mentor_since', m.created_at,
           'older_than', wanted.first_instant,
           'words', jsonb_build_array(
             format('%s; %s.',
                    case
                      when seen.last_activity is null then 'No activity'
                      else format('The last activity was on %s', seen.last_activity)
                    end,
                    case
                      when m.created_at is null then 'since when a mentor is not known, which counts as long enough'
                      else format('a mentor since %s', (m.created_at at time zone 'utc')::date)
                    end),
             format('Due without an activity since %s (%s days ago), for a mentor from before then.',
                    wanted.first_day, params ->> 'days')))
    from scheduler.mentors m
   cross join lateral (
           select max(a.activity_date) from scheduler.activities a where a.user_id = m.user_id) seen(last_activity)
   cross join lateral (
           select (as_of at time zone 'utc')::date - (params ->> 'days')::int,
                  as_of - make_interval(days => (params ->> 'days')::int)) wanted(first_day, first_instant)
   where m.id = explain_inactivity.mentor_id
$$;

create function scheduler.explain_milestone(mentor_id uuid, as_of timestamptz, params jsonb)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
           'activities', counted.activities,
           'counts', params -> 'counts',
           'reached', goal.reached,
           'highest_told', told.highest,
           'words', jsonb_build_array(
             format('Activities: %s. Of the counts %s, the highest reached is %s, and the highest told is %s.',
                    counted.activities,
                    (select coalesce(string_agg(c, ', ' order by c::int), 'none')
                       from jsonb_array_elements_text(params -> 'counts') c),
                    coalesce(goal.reached::text, 'none'),
                    coalesce(told.highest::text, 'none')),
             'Due when the one reached is higher than the one told.'))
    from scheduler.mentors m
   cross join lateral (
           select count(*) from scheduler.activities a where a.user_id = m.user_id) counted(activities)
   cross join lateral (
           select max(c::int)
             from jsonb_array_elements_text(params -> 'counts') c
            where c::int <= counted.activities) goal(reached)
   cross join lateral (
           select max((n.payload ->> 'milestone')::int)
             from scheduler.notifications n
            where n.user_id = m.user_id
              and n.scenario_type = 'milestone') told(highest)
   where m.id = explain_milestone.mentor_id
$$;

create function scheduler.explain_expiry(mentor_id uuid, as_of timestamptz, params jsonb)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
           'soonest_end', ending.soonest,
           'until', wanted.last_day,
           'words', jsonb_build_array(
             case
               when ending.soonest is null then 'No active assignment ends today or later.'
               else format('The next active assignment to end does so on %s.', ending.soonest)
             end,
             format('Due when one ends by %s (within %s days).', wanted.last_day, params ->> 'days')))
    from scheduler.mentors m
   cross join lateral (
           select min(a.expires_at)
             from scheduler.assignments a
            where a.mentor_id = m.id
              and a.status = 'active'
              and a.expires_at >= (as_of at time zone 'utc')::date) ending(soonest)
   cross join lateral (
           select (as_of at time zone 'utc')::date + (params ->> 'days')::int) wanted(last_day)
   where m.id = explain_expiry.mentor_id
$$;

-- What scheduler.evaluate would do with one mentor at this moment, and why. Kept to that by a property test.
--
-- mentor_id  of a mentor that is in the view; nothing is due for anybody else
--
-- Returns a row per scenario, the disabled ones too: what its function says (is_due, payload, or the SQLSTATE it
-- failed with), the facts, and what keeps a notification in (`is_cooling`, and until when; null: for good). It
-- runs in a snapshot, locks nothing, and answers on a standby and in a read-only transaction as well.
create function scheduler.explain(mentor_id uuid)
returns table (
  scenario_type text,
  enabled boolean,
  params jsonb,
  cooldown text,
  is_due boolean,
  payload jsonb,
  error text,
  facts jsonb,
  is_cooling boolean,
  cooldown_until timestamptz,
  last_sent_at timestamptz,
  last_payload jsonb,
  last_run_id uuid)
-- Not volatile, so that Postgres refuses it every write of its own.
language plpgsql stable security definer
-- As in scheduler.evaluate, and for its reasons.
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set intervalstyle = 'postgres'
set datestyle = 'ISO'
set jit = off
as $$
#variable_conflict use_column
declare
  as_of constant timestamptz := now();
  today constant date := as_of::date;
  user_of_mentor constant uuid := (select m.user_id from scheduler.mentors m where m.id = explain.mentor_id);
  scenario scheduler.scenario_evaluation_config;
  user_to_notify uuid;
  due_rows bigint;
  cools_until timestamptz;
begin
  for scenario in
    select c.* from scheduler.scenario_evaluation_config c order by c.scenario_type
  loop
    scenario_type := scenario.scenario_type;
    enabled := scenario.enabled;
    params := scenario.params;
    cooldown := scenario.cooldown::text;
    user_to_notify := user_of_mentor;
    is_due := false;
    payload := null;
    error := null;
    facts := null;

    -- One scenario that fails is an answer of its own; the others are asked all the same.
    begin
      execute format(
        'select d.user_id, d.payload from scheduler.%I(array[$1], $2, %L::jsonb) d '
        'order by d.user_id, d.mentor_id limit 1',
        'scenario_' || scenario.scenario_type,
        scenario.params)
        into user_to_notify, payload
        using explain.mentor_id, as_of;
      get diagnostics due_rows = row_count;
      is_due := due_rows > 0;
      if not is_due then
        user_to_notify := user_of_mentor;
      elsif user_to_notify is null then
        error := '23502'; -- as scheduler.evaluate says it
      end if;
    exception
      when others then
        error := sqlstate;
    end;

    if to_regprocedure(format('scheduler.%I(uuid, timestamptz, jsonb)', 'explain_' || scenario.scenario_type))
       is not null then
      begin
        execute format('select to_jsonb(scheduler.%I($1, $2, $3))', 'explain_' || scenario.scenario_type)
          into facts
          using explain.mentor_id, as_of, scenario.params;
      exception
        when others then
          facts := null;
      end;
    end if;

    -- What keeps it in: the window that slides with what was sent, and one notification a day at the most.
    select greatest(
             (select c.cooldown_window_start + scenario.cooldown
                from scheduler.cooldowns c
               where c.user_id = user_to_notify
                 and c.scenario_type = scenario.scenario_type),
             (select (n.evaluation_date + 1)::timestamptz
                from scheduler.notifications n
               where n.user_id = user_to_notify
                 and n.scenario_type = scenario.scenario_type
                 and n.evaluation_date = today))
      into cools_until;
    is_cooling := coalesce(cools_until > as_of, false);
    -- A cooldown can last longer than a calendar does elsewhere.
    cooldown_until := case when is_cooling and cools_until < '9999-01-01' then cools_until end;

    select n.cooldown_window_start, n.payload, n.run_id
      into last_sent_at, last_payload, last_run_id
      from scheduler.notifications n
     where n.user_id = user_to_notify
       and n.scenario_type = scenario.scenario_type
     order by n.cooldown_window_start desc
     limit 1;
    return next;
  end loop;
end $$;

alter function scheduler.explain_inactivity owner to scheduler_owner;
alter function scheduler.explain_milestone owner to scheduler_owner;
alter function scheduler.explain_expiry owner to scheduler_owner;
alter function scheduler.explain owner to scheduler_owner;

revoke all on function scheduler.explain_inactivity, scheduler.explain_milestone, scheduler.explain_expiry,
  scheduler.explain
  from public;
grant execute on function scheduler.explain to scheduler_service;
