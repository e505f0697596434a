-- Whether scheduler_owner can post with pg_net, and read what came back. No parameters.
--
-- Returns one row: can_post.
select has_schema_privilege('scheduler_owner', 'net', 'usage')
       and has_function_privilege('scheduler_owner', p.oid, 'execute')
       and (p.prosecdef or has_table_privilege('scheduler_owner', 'net.http_request_queue', 'insert'))
       and has_table_privilege('scheduler_owner', 'net._http_response', 'select') as can_post
  from pg_catalog.pg_proc p
 where p.oid = 'net.http_post(text, jsonb, jsonb, jsonb, integer)'::regprocedure
