-- The scenarios and scheduler.evaluate as they were, for less of the server's time. Nobody is due for other reasons,
-- and nothing goes out twice, for the reasons given where these functions were first made.
--
-- `array(select unnest(mentor_ids))` hides from the planner what the array holds: it would look at each id once for
-- every index that might serve, 0.6 ms a chunk on Postgres 18. On 15 the figures that it arrives at talk it into
-- visiting the table instead of the index alone, 2 of 18 ms.

-- No activity for params.days; a mentor newer than that is not due. One look at the last activity says whether, and
-- what to tell: 5.9 ms for 2,000 of a million mentors, where two looks took 6.5.
create or replace function scheduler.scenario_inactivity(mentor_ids uuid[], as_of timestamptz, params jsonb)
returns table (mentor_id uuid, user_id uuid, payload jsonb)
language sql stable
as $$
  select m.id, m.user_id, jsonb_build_object('last_activity', latest.activity_date)
    from scheduler.mentors m
    left join lateral (
           select a.activity_date
             from scheduler.activities a
            where a.user_id = m.user_id
              and a.activity_date is not null
            order by a.activity_date desc
            limit 1) latest on true
   where m.id = any (array(select unnest(mentor_ids)))
     and m.status = 'active'
     -- A mentor whose age is not known is not a new one.
     and (m.created_at < as_of - make_interval(days => (params ->> 'days')::int)) is not false
     and (latest.activity_date >= (as_of at time zone 'utc')::date - (params ->> 'days')::int) is not true
$$;

-- The highest of params.counts that was reached, unless it or a higher one was notified before.
create or replace function scheduler.scenario_milestone(mentor_ids uuid[], as_of timestamptz, params jsonb)
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
   where m.id = any (array(select unnest(mentor_ids)))
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

-- An active assignment ends within params.days, today included; the soonest of them. Begins with the assignments,
-- which lie side by side in their index, and looks up the mentors of those few that end: 0.6 ms for 2,000 of a
-- million mentors, where a look at each mentor's assignments took 2.2.
create or replace function scheduler.scenario_expiry(mentor_ids uuid[], as_of timestamptz, params jsonb)
returns table (mentor_id uuid, user_id uuid, payload jsonb)
language sql stable
as $$
  select m.id, m.user_id, jsonb_build_object('expires_at', ending.soonest)
    from (select a.mentor_id, min(a.expires_at) as soonest
            from scheduler.assignments a
           where a.mentor_id = any (array(select unnest(mentor_ids)))
             and a.status = 'active'
             and a.expires_at >= (as_of at time zone 'utc')::date
             and a.expires_at <= (as_of at time zone 'utc')::date + (params ->> 'days')::int
           group by a.mentor_id) ending
   cross join lateral (
           select m.id, m.user_id
             from scheduler.mentors m
            where m.id = ending.mentor_id
              and m.status = 'active'
           offset 0) m
$$;

-- Its arguments, its answer and its errors are described where it was first made.
--
-- Only what is due is planned for the mentors at hand, because it depends on how many they are. All else is planned
-- once a session, and therefore joins nothing: a plan that knows no array's length takes each for ten elements, and
-- would compare each of 200 notifications with each. That one comparison, of what was to be sent with what was,
-- took 2.7 ms of every chunk of 2,000 with a tenth due.
create or replace function scheduler.evaluate(
  mentor_ids uuid[],
  scenario_types text[] default null,
  dry_run boolean default false,
  run_id uuid default null,
  overrides jsonb default null)
returns table (mentor_id uuid, dispatched text[], suppressed text[])
language plpgsql volatile security definer
-- pg_temp is searched first unless it is named: for types too, so that a caller's could stand in for ours.
set search_path = pg_catalog, pg_temp
-- Elsewhere '1 day' after 12:00 is 23 hours later once a year, and still the same day in UTC.
set timezone = 'UTC'
-- A chunk is a small part of every table, and the planner takes reading all of it in order for cheap: eight
-- times slower at 200,000 mentors. It also takes such a call for long enough to compile.
set enable_seqscan = off
set jit = off
-- Does not reach what is due, which `execute` plans anew each time.
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  as_of constant timestamptz := now();
  today constant date := as_of::date;
  types text[]; -- those to evaluate
  due_query text;
  -- What is due, in locking order: parallel arrays, because a temporary table would be written to the catalog.
  due_mentors uuid[];
  due_users uuid[];
  due_types text[];
  due_payloads jsonb[];
  due_windows timestamptz[]; -- where the cooldown's window begins, null if there is none
  due_open boolean[]; -- no window, or it has passed
  open_count bigint;
  -- Those of them whose window was moved to begin now.
  moved_users uuid[];
  moved_types text[];
  moved_count bigint;
  sent_mentors uuid[];
  sent_users uuid[];
  sent_types text[];
  sent_count bigint;
  refused_users uuid[];
  refused_types text[];
  refused_windows timestamptz[];
begin
  if dry_run is null then
    raise invalid_parameter_value using message = 'dry_run is null';
  end if;
  if exists (select from unnest(scenario_types) t(scenario_type)
              where not exists (select from scheduler.scenario_evaluation_config c
                                 where c.scenario_type = t.scenario_type)) then
    raise invalid_parameter_value using message = 'scenario_types names one that does not exist';
  end if;
  if overrides is not null and not (dry_run and scheduler.can_override(overrides)) then
    raise invalid_parameter_value using message = 'overrides can''t be used, or not without dry_run';
  end if;

  -- One branch per scenario, each inlined from its function.
  select array_agg(c.scenario_type),
         string_agg(
           format(
             'select d.mentor_id, d.user_id, %L::text as scenario_type, %L::interval as cooldown, d.payload '
             'from scheduler.%I($1, $2, %L::jsonb) d',
             c.scenario_type,
             coalesce(overrides -> c.scenario_type ->> 'cooldown', c.cooldown::text),
             'scenario_' || c.scenario_type,
             c.params || coalesce(overrides -> c.scenario_type -> 'params', '{}')),
           ' union all ')
    into types, due_query
    from scheduler.scenario_evaluation_config c
   where c.enabled
     and (evaluate.scenario_types is null or c.scenario_type = any (evaluate.scenario_types));
  if types is null then
    return;
  end if;

  -- The lateral join keeps the planner, which can't know how little is due, from reading all cooldowns.
  execute
    'select array_agg(d.mentor_id), array_agg(d.user_id), array_agg(d.scenario_type), array_agg(d.payload),
            array_agg(d.window_start), array_agg(d.is_open), count(*) filter (where d.is_open)
       from (select distinct on (d.user_id, d.scenario_type)
                    d.mentor_id, d.user_id, d.scenario_type, d.payload, c.window_start,
                    (c.window_start + d.cooldown <= $2) is not false as is_open
               from (' || due_query || ') d
               left join lateral (select c.cooldown_window_start as window_start
                                    from scheduler.cooldowns c
                                   where c.user_id = d.user_id
                                     and c.scenario_type = d.scenario_type
                                  offset 0) c on true
              order by d.user_id, d.scenario_type, d.mentor_id) d'
    into due_mentors, due_users, due_types, due_payloads, due_windows, due_open, open_count
    using mentor_ids, as_of;
  if array_position(due_users, null) is not null then
    raise not_null_violation using message = 'a mentor without a user can''t be notified';
  end if;

  if dry_run then
    return query
      select d.mentor_id,
             coalesce(array_agg(d.scenario_type) filter (where d.is_open), '{}'),
             coalesce(array_agg(d.scenario_type) filter (where not d.is_open), '{}')
        from (select d.mentor_id,
                     d.scenario_type,
                     d.is_open
                       and not exists (select
                                         from scheduler.notifications n
                                        where n.user_id = d.user_id
                                          and n.scenario_type = d.scenario_type
                                          and n.evaluation_date = today
                                       offset 0) as is_open
                from unnest(due_mentors, due_users, due_types, due_open)
                       d(mentor_id, user_id, scenario_type, is_open)) d
       group by d.mentor_id;
    return;
  end if;

  -- What is seen to cool down is left alone: it can only have been sent again since. So a run over mentors
  -- who were all notified lately locks nothing and writes nothing.
  if open_count > 0 then
    with moved as (
      insert into scheduler.cooldowns as held (user_id, scenario_type, cooldown_window_start)
      select d.user_id, d.scenario_type, as_of
        from unnest(due_users, due_types, due_open) d(user_id, scenario_type, is_open)
       where d.is_open
       order by d.user_id, d.scenario_type
          on conflict (user_id, scenario_type) do update
         set cooldown_window_start = excluded.cooldown_window_start
       where held.cooldown_window_start + (select c.cooldown
                                             from scheduler.scenario_evaluation_config c
                                            where c.scenario_type = held.scenario_type)
               <= excluded.cooldown_window_start
      returning user_id, scenario_type)
    select array_agg(m.user_id), array_agg(m.scenario_type), count(*)
      into moved_users, moved_types, moved_count
      from moved m;

    with sent as (
      insert into scheduler.notifications
             (mentor_id, user_id, scenario_type, cooldown_window_start, evaluation_date, payload, run_id)
      select d.mentor_id, d.user_id, d.scenario_type, as_of, today, d.payload, evaluate.run_id
        from unnest(due_mentors, due_users, due_types, due_payloads, due_open)
               d(mentor_id, user_id, scenario_type, payload, is_open)
       where d.is_open
         -- Mostly it was all of them. By `or`, the rest becomes a hash table, made when it is needed.
         and (moved_count = open_count
              or (d.user_id, d.scenario_type) in (select * from unnest(moved_users, moved_types)))
          on conflict do nothing
      returning mentor_id, user_id, scenario_type)
    select array_agg(s.mentor_id), array_agg(s.user_id), array_agg(s.scenario_type), count(*)
      into sent_mentors, sent_users, sent_types, sent_count
      from sent s;

    -- Refused by a unique key of the notifications: somebody took the cooldown's row away. Its window goes back
    -- to where it was, because nothing was sent; the row is still locked by this call.
    if sent_count < moved_count then
      select array_agg(d.user_id), array_agg(d.scenario_type), array_agg(d.window_start)
        into refused_users, refused_types, refused_windows
        from unnest(due_users, due_types, due_windows) d(user_id, scenario_type, window_start)
       where ((d.user_id, d.scenario_type) in (select * from unnest(moved_users, moved_types))) is true
         and ((d.user_id, d.scenario_type) in (select * from unnest(sent_users, sent_types))) is not true;
      update scheduler.cooldowns c
         set cooldown_window_start = r.window_start
        from unnest(refused_users, refused_types, refused_windows) r(user_id, scenario_type, window_start)
       where c.user_id = r.user_id
         and c.scenario_type = r.scenario_type
         and r.window_start is not null;
      delete from scheduler.cooldowns c
       using unnest(refused_users, refused_types, refused_windows) r(user_id, scenario_type, window_start)
       where c.user_id = r.user_id
         and c.scenario_type = r.scenario_type
         and r.window_start is null;
    end if;
  end if;

  -- A statement of its own, hence with a snapshot taken after the locks: it sees what a first call for this
  -- run has sent, though it was still under way when this one began. One descent of the index for all mentors.
  return query
    with of_this_run as materialized (
      select n.mentor_id, n.scenario_type
        from scheduler.notifications n
       where n.run_id = evaluate.run_id
         and n.mentor_id >= (select i.id from unnest(mentor_ids) i(id) order by i.id limit 1)
         and n.mentor_id <= (select i.id from unnest(mentor_ids) i(id) order by i.id desc nulls last limit 1)),
    answers as (
      select d.mentor_id, d.scenario_type, false as was_sent
        from unnest(due_mentors, due_types) d(mentor_id, scenario_type)
       union all
      select s.mentor_id, s.scenario_type, true
        from unnest(sent_mentors, sent_types) s(mentor_id, scenario_type)
       union all
      select n.mentor_id, n.scenario_type, true
        from of_this_run n
       where (n.mentor_id in (select unnest(mentor_ids))) is true
         and n.scenario_type = any (types))
    select a.mentor_id,
           coalesce(array_agg(a.scenario_type) filter (where a.was_sent), '{}'),
           coalesce(array_agg(a.scenario_type) filter (where not a.was_sent), '{}')
      from (select a.mentor_id, a.scenario_type, bool_or(a.was_sent) as was_sent
              from answers a
             group by a.mentor_id, a.scenario_type) a
     group by a.mentor_id;
end $$;
