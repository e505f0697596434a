-- Who can read the headers that wait in pg_net's queue, and should not: the secret is one of them. No parameters.
--
-- Returns role, those that log in first. Who owns the queue and who is scheduler_owner may; a superuser counts as a
-- member of every role. So may who was given pg_read_all_data: that is all data.
select r.rolname::text as role
  from pg_catalog.pg_roles r
  join pg_catalog.pg_class queue on queue.oid = to_regclass('net.http_request_queue')
 where has_schema_privilege(r.oid, queue.relnamespace, 'usage')
   and has_column_privilege(r.oid, queue.oid, 'headers', 'select')
   and not pg_has_role(r.oid, queue.relowner, 'member')
   and not pg_has_role(r.oid, 'scheduler_owner', 'member')
   and not pg_has_role(r.oid, 'pg_read_all_data', 'member')
   and r.rolname !~ '^pg_'
 order by r.rolcanlogin desc, r.rolname
