-- Can these be the overrides of scheduler.evaluate? Only scenarios, params and cooldowns that there are.
create function scheduler.can_override(overrides jsonb)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return jsonb_typeof(overrides) = 'object' and not exists (
    select
      from jsonb_each(overrides) o(scenario_type, override)
      left join scheduler.scenario_evaluation_config c using (scenario_type)
     where case
             when c.scenario_type is null or jsonb_typeof(o.override) <> 'object' then true
             when o.override - '{params,cooldown}'::text[] <> '{}' then true
             when o.override ? 'params' and jsonb_typeof(o.override -> 'params') <> 'object' then true
             when (o.override -> 'params') - array(select jsonb_object_keys(c.params)) <> '{}' then true
             when o.override ? 'cooldown' and jsonb_typeof(o.override -> 'cooldown') <> 'string' then true
             else (o.override ->> 'cooldown')::interval < '1 day'
           end);
exception
  when data_exception then -- a cooldown that is no interval
    return false;
end $$;

revoke all on function scheduler.can_override from public;

-- The built-in trigger engine: evaluates a chunk of mentors, all its scenarios at once, and writes what is due.
--
-- mentor_ids      one call per chunk; duplicates, and ids of nobody, do no harm
-- scenario_types  null for every enabled one; of those named, the disabled ones are not evaluated
-- dry_run         writes and locks nothing, and says what a call at this moment would do
-- run_id          a second call for the same run is told `dispatched` for what the run has sent already
-- overrides       for a dry run only: {"inactivity": {"params": {"days": 10}, "cooldown": "3 days"}};
--                 params are merged over the stored ones
--
-- Returns a row per mentor with something due. Raises 22023 for an argument that can't be used, 23502 for a
-- mentor without a user.
--
-- Why nothing goes out twice: the row of scheduler.cooldowns is the lock of one user and scenario. The upsert
-- waits for whoever else has it, then checks the window on the row as that one left it, so that of fifty calls
-- one sends. Rows are locked in one order in every call, so that calls can't wait for one another in a circle.
--
-- A chunk of 2,000 with a tenth due takes 1.15 times what it takes in a single statement that knows neither
-- a refused insert nor a retry (Postgres 15; 1.05 on 18), and as long once all of it is cooling down.
create function scheduler.evaluate(
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
-- A generic plan takes an array for ten elements, and compares each of 200 notifications with each.
set plan_cache_mode = force_custom_plan
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
  sent_mentors uuid[];
  sent_types text[];
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
            array_agg(d.window_start), array_agg(d.is_open)
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
    into due_mentors, due_users, due_types, due_payloads, due_windows, due_open
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
                                          and n.evaluation_date = today) as is_open
                from unnest(due_mentors, due_users, due_types, due_open)
                       d(mentor_id, user_id, scenario_type, is_open)) d
       group by d.mentor_id;
    return;
  end if;

  -- What is seen to cool down is left alone: it can only have been sent again since. So a run over mentors
  -- who were all notified lately locks nothing and writes nothing.
  if true = any (due_open) then
    with due as (
      select *
        from unnest(due_mentors, due_users, due_types, due_payloads, due_windows, due_open)
               d(mentor_id, user_id, scenario_type, payload, window_start, is_open)
       where d.is_open),
    moved as (
      insert into scheduler.cooldowns as held (user_id, scenario_type, cooldown_window_start)
      select d.user_id, d.scenario_type, as_of
        from due d
       order by d.user_id, d.scenario_type
          on conflict (user_id, scenario_type) do update
         set cooldown_window_start = excluded.cooldown_window_start
       where held.cooldown_window_start + (select c.cooldown
                                             from scheduler.scenario_evaluation_config c
                                            where c.scenario_type = held.scenario_type)
               <= excluded.cooldown_window_start
      returning user_id, scenario_type),
    sent as (
      insert into scheduler.notifications
             (mentor_id, user_id, scenario_type, cooldown_window_start, evaluation_date, payload, run_id)
      select d.mentor_id, d.user_id, d.scenario_type, as_of, today, d.payload, evaluate.run_id
        from moved m
        join due d on d.user_id = m.user_id and d.scenario_type = m.scenario_type
          on conflict do nothing
      returning user_id, scenario_type)
    select array_agg(d.mentor_id) filter (where s.user_id is not null),
           array_agg(d.scenario_type) filter (where s.user_id is not null),
           array_agg(d.user_id) filter (where s.user_id is null),
           array_agg(d.scenario_type) filter (where s.user_id is null),
           array_agg(d.window_start) filter (where s.user_id is null)
      into sent_mentors, sent_types, refused_users, refused_types, refused_windows
      from moved m
      join due d on d.user_id = m.user_id and d.scenario_type = m.scenario_type
      left join sent s on s.user_id = m.user_id and s.scenario_type = m.scenario_type;
  end if;

  -- Refused by a unique key of the notifications: somebody took the cooldown's row away. Its window goes back
  -- to where it was, because nothing was sent; the row is still locked by this call.
  if refused_users is not null then
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
       where n.mentor_id in (select unnest(mentor_ids))
         and n.scenario_type = any (types))
    select a.mentor_id,
           coalesce(array_agg(a.scenario_type) filter (where a.was_sent), '{}'),
           coalesce(array_agg(a.scenario_type) filter (where not a.was_sent), '{}')
      from (select a.mentor_id, a.scenario_type, bool_or(a.was_sent) as was_sent
              from answers a
             group by a.mentor_id, a.scenario_type) a
     group by a.mentor_id;
end $$;

revoke all on function scheduler.evaluate from public;
