-- What is known of one mentor, and what each scenario makes of it.
--
-- $1 mentor_id uuid
-- $2 statuses  text[]  assignment statuses that make a mentor eligible
--
-- Returns status, created_at, has_user, assignment_statuses, is_eligible, and of scheduler.explain every column, a
-- row per scenario in order; one with nulls where there is no scenario, no row where there is no such mentor. The
-- first few are read from the views, as the walk does; the rest is for scheduler.explain alone to see.
select m.status,
       m.created_at,
       m.user_id is not null as has_user,
       array(select distinct coalesce(a.status::text, 'null')
               from scheduler.assignments a
              where a.mentor_id = m.id
              order by 1) as assignment_statuses,
       exists (select
                 from scheduler.assignments a
                where a.mentor_id = m.id
                  and a.status = any ($2::text[])) as is_eligible,
       e.scenario_type,
       e.enabled,
       e.params,
       e.cooldown,
       e.is_due,
       e.payload,
       e.error,
       e.facts,
       e.is_cooling,
       e.cooldown_until,
       e.last_sent_at,
       e.last_payload,
       e.last_run_id
  from scheduler.mentors m
  left join lateral scheduler.explain(m.id) e on true
 where m.id = $1
 order by e.scenario_type
