-- What somebody writes by hand who knows the three shipped scenarios and their parameters, for bench/million.py.
--
-- $1 run_id uuid
--
-- Returns dispatched, suppressed. Every table is read once; no function per scenario, no parameter, no dry run,
-- no chunk, no retry, and a refused notification keeps its cooldown: less than scheduler.evaluate promises.
with evaluated as (
  select m.id, m.user_id, m.created_at, done.last_activity, done.activities, assigned.soonest,
         case
           when done.activities >= 50 then 50
           when done.activities >= 25 then 25
           when done.activities >= 10 then 10
         end as milestone
    from scheduler.mentors m
    join (select a.mentor_id,
                 min(a.expires_at)
                   filter (where a.expires_at between (now() at time zone 'utc')::date
                                                  and (now() at time zone 'utc')::date + 7) as soonest
            from scheduler.assignments a
           where a.status = 'active'
           group by a.mentor_id) assigned on assigned.mentor_id = m.id
    left join (select a.user_id, max(a.activity_date) as last_activity, count(*) as activities
                 from scheduler.activities a
                group by a.user_id) done on done.user_id = m.user_id
   where m.status = 'active'),
due as (
  select e.id as mentor_id, e.user_id, d.scenario_type, d.payload
    from evaluated e
   cross join lateral (
           select 'inactivity' as scenario_type, jsonb_build_object('last_activity', e.last_activity) as payload
            where (e.created_at < now() - interval '14 days') is not false
              and (e.last_activity >= (now() at time zone 'utc')::date - 14) is not true
            union all
           select 'milestone', jsonb_build_object('milestone', e.milestone)
            where case -- by `and`, Postgres looks the notification up first, and for everybody
                    when e.milestone is not null
                    then not exists (select
                                       from scheduler.notifications n
                                      where n.user_id = e.user_id
                                        and n.scenario_type = 'milestone'
                                        and (n.payload ->> 'milestone')::int >= e.milestone)
                  end
            union all
           select 'expiry', jsonb_build_object('expires_at', e.soonest)
            where e.soonest is not null) d),
moved as (
  insert into scheduler.cooldowns as held (user_id, scenario_type, cooldown_window_start)
  select d.user_id, d.scenario_type, now()
    from due d
   order by d.user_id, d.scenario_type
      on conflict (user_id, scenario_type) do update
     set cooldown_window_start = excluded.cooldown_window_start
   where held.cooldown_window_start
           + case held.scenario_type when 'milestone' then interval '1 day' else interval '7 days' end
           <= excluded.cooldown_window_start
  returning user_id, scenario_type),
sent as (
  insert into scheduler.notifications
         (mentor_id, user_id, scenario_type, cooldown_window_start, evaluation_date, payload, run_id)
  select d.mentor_id, d.user_id, d.scenario_type, now(), (now() at time zone 'utc')::date, d.payload, $1::uuid
    from moved
    join due d using (user_id, scenario_type)
      on conflict do nothing
  returning scenario_type)
select (select count(*) from sent) as dispatched,
       (select count(*) from due) - (select count(*) from moved) as suppressed
