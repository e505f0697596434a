-- What is wrong with the three roles, or with whose the functions are that lend their owner's rights. No parameters.
--
-- Returns found and mend, a row for each fault. A role that is missing, or not as migrations/20261126000002_roles.sql
-- made it; every attribute beyond is a way round what the other rights say.
select format('%s may %s', r.rolname, a.what) as found,
       format('alter role %I %s', r.rolname, a.mend) as mend
  from pg_catalog.pg_roles r
 cross join lateral (
       values (r.rolsuper, 'do everything, as a superuser', 'nosuperuser'),
              (r.rolbypassrls, 'pass by row-level security', 'nobypassrls'),
              (r.rolcreaterole, 'make roles', 'nocreaterole'),
              (r.rolcreatedb, 'make databases', 'nocreatedb'),
              (r.rolreplication, 'copy the whole server', 'noreplication'),
              (r.rolcanlogin and r.rolname = 'scheduler_owner', 'log in', 'nologin'),
              (not r.rolcanlogin and r.rolname <> 'scheduler_owner', 'not log in', 'login')) a(is_so, what, mend)
 where r.rolname in ('scheduler_owner', 'scheduler_service', 'scheduler_cron')
   and a.is_so
 union all
select format('there is no role %s', wanted.name), 'run `scenario-scheduler migrate`'
  from unnest('{scheduler_owner, scheduler_service, scheduler_cron}'::text[]) wanted(name)
 where to_regrole(wanted.name) is null
 union all
select format('the function %s belongs to %s', p.oid::regprocedure, p.proowner::regrole),
       format('alter function %s owner to scheduler_owner', p.oid::regprocedure)
  from pg_catalog.pg_proc p
 where p.oid in (to_regprocedure('scheduler.evaluate(uuid[], text[], boolean, uuid, jsonb)'),
                 to_regprocedure('scheduler.invoke(text[])'))
   and p.proowner is distinct from to_regrole('scheduler_owner')::oid
