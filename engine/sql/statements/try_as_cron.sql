-- Try what pg_cron's role must be able to do, which is to tick, and what must be refused to it. Run as scheduler_cron,
-- after hand_over_sources.sql. No parameters.
--
-- Leaves in scheduler.found what try_as_service.sql does, in the same way.
do $$
declare
  attempt record;
  allowed text[] := '{}';
  refused text[] := '{}';
begin
  for attempt in
    select true as is_due, 'tick' as what, 'select scheduler.invoke() where false' as sql
     union all
    select false, denied.what, denied.sql
      from (values ('read scheduler.settings, where the URL of the tick is',
                    'select from scheduler.settings where false'),
                   ('read scheduler.fallback_secret, where the secret may be',
                    'select from scheduler.fallback_secret where false'),
                   ('change scheduler.fallback_secret',
                    'update scheduler.fallback_secret set secret = '''' where false'),
                   ('read the secret', 'select scheduler.read_secret() where false'),
                   ('evaluate mentors', 'select scheduler.evaluate(''{}'', null, true) where false'),
                   ('post to any URL', 'select scheduler.post_and_wait('''', '''', '''', 0) where false'),
                   ('read Vault', 'select from vault.decrypted_secrets where false'),
                   ('read scheduler.mentors', 'select from scheduler.mentors where false'),
                   ('read scheduler.assignments', 'select from scheduler.assignments where false'),
                   ('read scheduler.activities', 'select from scheduler.activities where false'),
                   ('read scheduler.notifications', 'select from scheduler.notifications where false'),
                   ('read scheduler.runs', 'select from scheduler.runs where false'),
                   ('make jobs', 'select from cron.job where false'),
                   ('make things in the schema scheduler', 'create table scheduler.made_by_cron ()'))
             denied(what, sql)
     union all
    select false,
           format('become %s', role),
           format('do $do$ begin if not pg_has_role(current_user, %L, ''member'') '
                  'then raise insufficient_privilege; end if; end $do$', role)
      from unnest('{scheduler_owner, scheduler_service}'::text[]) role
     union all
    select false, format('read %s.%s', n.nspname, c.relname),
           format('select from %I.%I where false', n.nspname, c.relname)
      from pg_catalog.pg_class c
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.oid = any (current_setting('scheduler.sources')::oid[])
       and n.nspname <> 'scheduler'
  loop
    begin
      execute attempt.sql;
      raise sqlstate 'DR001'; -- undoes it
    exception
      when sqlstate 'DR001' then
        if not attempt.is_due then
          allowed := allowed || attempt.what;
        end if;
      when insufficient_privilege then
        if attempt.is_due then
          refused := refused || attempt.what;
        end if;
      when undefined_table or undefined_function or invalid_schema_name then
        if attempt.is_due then
          raise;
        end if;
    end;
  end loop;
  perform set_config('scheduler.found', jsonb_build_object('allowed', allowed, 'refused', refused)::text, true);
end $$
