-- Give scheduler_service the password that hand_over_password.sql has kept: `alter role` takes no parameter.
--
-- No parameters. What goes wrong is said in other words than the server's, which quote the statement, in its log
-- too. The search_path is pinned against a `format` of somebody who may create in `public`.
do $$
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  execute format('alter role scheduler_service password %L', current_setting('scheduler.password'));
exception
  when others then
    raise exception using errcode = sqlstate, message = 'the password of scheduler_service can''t be set';
end $$
