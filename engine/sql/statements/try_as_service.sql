-- Try what the service must be able to do, and what must be refused to it. Run as scheduler_service, after
-- hand_over_sources.sql. No parameters.
--
-- Leaves in scheduler.found {"allowed": […], "refused": […]}: what went otherwise than it must. Every statement is
-- made so that it does nothing even where it is allowed: rights are checked before the first row, and there is none.
-- A function stands before `from`, because one behind it would be planned away unchecked.
do $$
declare
  attempt record;
  allowed text[] := '{}';
  refused text[] := '{}';
begin
  for attempt in
    select true as is_due, due.what, due.sql
      from (values ('read scheduler.runs', 'select from scheduler.runs where false'),
                   ('begin a run', 'insert into scheduler.runs (id) select id from scheduler.runs where false'),
                   ('write down a run', 'update scheduler.runs set heartbeat_at = now() where false'),
                   ('remove old runs', 'delete from scheduler.runs where false'),
                   ('read scheduler.migrations', 'select from scheduler.migrations where false'),
                   ('read the scenarios', 'select from scheduler.scenario_evaluation_config where false'),
                   ('count what a scenario did',
                    'update scheduler.scenario_evaluation_config set last_run_evaluated = 0 where false'))
             due(what, sql)
     union all
    select false, denied.what, denied.sql
      from (values ('read scheduler.settings, where the URL of the tick is',
                    'select from scheduler.settings where false'),
                   ('read scheduler.fallback_secret, where the secret may be',
                    'select from scheduler.fallback_secret where false'),
                   ('change scheduler.fallback_secret',
                    'update scheduler.fallback_secret set secret = '''' where false'),
                   ('read the secret', 'select scheduler.read_secret() where false'),
                   ('tick', 'select scheduler.invoke() where false'),
                   ('post to any URL', 'select scheduler.post_and_wait('''', '''', '''', 0) where false'),
                   ('read Vault', 'select from vault.decrypted_secrets where false'),
                   ('grant rights', 'select scheduler.grant_rights() where false'),
                   ('change a scenario',
                    'update scheduler.scenario_evaluation_config set enabled = enabled where false'),
                   ('forget what was sent', 'delete from scheduler.notifications where false'),
                   ('forget a cooldown', 'delete from scheduler.cooldowns where false'),
                   ('make things in the schema scheduler', 'create table scheduler.made_by_service ()'))
             denied(what, sql)
     union all
    select false,
           format('become %s', role),
           -- Only a login of its own can be tried; who has become scheduler_service may become anybody again.
           case when session_user = current_user
                then format('set local role %I', role)
                else format('do $do$ begin if not pg_has_role(current_user, %L, ''member'') '
                            'then raise insufficient_privilege; end if; end $do$', role)
           end
      from unnest('{scheduler_owner, scheduler_cron}'::text[]) role
     union all
    select false, format('%s %s.%s', verb, n.nspname, c.relname), format(sql, n.nspname, c.relname)
      from pg_catalog.pg_class c
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     cross join (values ('read', 'select from %I.%I where false'),
                        ('remove rows of', 'delete from %I.%I where false')) tried(verb, sql)
     where c.oid = any (current_setting('scheduler.sources')::oid[])
       and n.nspname <> 'scheduler'
       and (verb = 'read' or c.relkind <> 'm')
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
        if attempt.is_due then -- else there is nothing here to be refused
          raise;
        end if;
    end;
  end loop;
  perform set_config('scheduler.found', jsonb_build_object('allowed', allowed, 'refused', refused)::text, true);
end $$
