-- Who has a right to the tick's secret in the database, or to change where it is sent, and should not. No parameters.
--
-- Returns role and what. Any right to the two tables counts: a trigger sees what is written,
-- and row-level security, which shows no row to who may read, is a second line and not the first. So it does without
-- the use of the schema, which is one `grant` away. scheduler_owner's members may, and a superuser counts as a member
-- of every role; so may who was given pg_read_all_data or pg_write_all_data: that is all data. scheduler_service and
-- scheduler_cron are tried instead: see try_as_service.sql and try_as_cron.sql.
select r.rolname::text as role, kept.what
  from pg_catalog.pg_roles r
 cross join (values ('scheduler.fallback_secret', 'scheduler.fallback_secret'::regclass),
                    ('scheduler.settings', 'scheduler.settings'::regclass))
            kept(what, oid)
 where (has_table_privilege(r.oid, kept.oid, 'select, insert, update, delete, truncate, references, trigger')
        or has_any_column_privilege(r.oid, kept.oid, 'select, insert, update, references'))
   and not pg_has_role(r.oid, 'scheduler_owner', 'member')
   and not pg_has_role(r.oid, 'pg_read_all_data', 'member')
   and not pg_has_role(r.oid, 'pg_write_all_data', 'member')
   and r.rolname !~ '^pg_'
   and r.rolname not in ('scheduler_service', 'scheduler_cron')
 union all
select r.rolname::text, 'scheduler.read_secret()'
  from pg_catalog.pg_roles r
 where has_function_privilege(r.oid, 'scheduler.read_secret()', 'execute')
   and not pg_has_role(r.oid, 'scheduler_owner', 'member')
   and r.rolname !~ '^pg_'
   and r.rolname not in ('scheduler_service', 'scheduler_cron')
 order by 2, 1
