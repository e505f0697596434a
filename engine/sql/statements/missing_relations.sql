-- What the three views need and don't find: a table or view, or columns of the one that is there. No parameters.
--
-- Returns missing, one text per row. A view scheduler.<…> that is there counts; else the table it is shipped for.
select case
         when r.relation is null then r.shipped_for
         else string_agg(c.name, ', ' order by c.ordinality) || ' of ' || r.relation
       end as missing
  from (select needed.shipped_for,
               needed.columns,
               coalesce(to_regclass(needed.view), to_regclass(needed.shipped_for)) as relation
          from (values ('scheduler.mentors', 'public.peer_mentors', '{id,user_id,status,created_at}'::text[]),
                       ('scheduler.assignments', 'public.assignments', '{mentor_id,status,expires_at}'),
                       ('scheduler.activities', 'public.activities', '{user_id,activity_date}'))
               needed(view, shipped_for, columns)) r
 cross join lateral unnest(r.columns) with ordinality c(name, ordinality)
 where not exists (select
                     from pg_catalog.pg_attribute a
                    where a.attrelid = r.relation
                      and a.attname = c.name
                      and not a.attisdropped)
 group by r.relation, r.shipped_for
 order by r.shipped_for
