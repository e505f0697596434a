-- Who may do what: three roles, and their rights.
--
-- scheduler_owner    owns all of this; nobody logs in as it
-- scheduler_service  what the process logs in as: it reads the three views, keeps the ledger, calls evaluate
-- scheduler_cron     what pg_cron runs the tick as: it calls invoke
--
-- Roles belong to the whole server, so another database of it may have made them already.
do $$
begin
  -- Whoever may create in `public` could lay a function of theirs over one of Postgres's.
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  if to_regrole('scheduler_owner') is null then
    create role scheduler_owner nologin noinherit;
  end if;
  -- Without a password nobody logs in, but where pg_hba.conf trusts: give it one with `alter role`.
  if to_regrole('scheduler_service') is null then
    create role scheduler_service login noinherit;
  end if;
  -- pg_cron starts each tick as a login of this role, which has no password.
  if to_regrole('scheduler_cron') is null then
    create role scheduler_cron login noinherit connection limit 5;
  end if;
exception
  when duplicate_object or unique_violation then -- by another database, in this very moment
    null;
end $$;

-- Whoever migrates has to be able to act for them: for the owner to change what it owns, for the other two to
-- try what they may do.
do $$
declare
  role regrole;
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  foreach role in array '{scheduler_owner, scheduler_service, scheduler_cron}'::regrole[] loop
    if not pg_has_role(role, 'usage') then
      execute format('grant %s to current_user', role);
    end if;
  end loop;
end $$;

-- From here on, all that is made in this schema has this owner, and says who else may use it.
alter schema scheduler owner to scheduler_owner;
alter table scheduler.scenario_evaluation_config owner to scheduler_owner;
alter table scheduler.cooldowns owner to scheduler_owner;
alter table scheduler.notifications owner to scheduler_owner;
alter table scheduler.runs owner to scheduler_owner;
alter table scheduler.settings owner to scheduler_owner;
alter table scheduler.fallback_secret owner to scheduler_owner;
alter table scheduler.invocations owner to scheduler_owner;
alter function scheduler.scenario_inactivity owner to scheduler_owner;
alter function scheduler.scenario_milestone owner to scheduler_owner;
alter function scheduler.scenario_expiry owner to scheduler_owner;
alter function scheduler.check_scenario_function owner to scheduler_owner;
alter function scheduler.can_override owner to scheduler_owner;
alter function scheduler.evaluate owner to scheduler_owner;
alter function scheduler.find_extensions owner to scheduler_owner;
alter function scheduler.read_secret owner to scheduler_owner;
alter function scheduler.read_answer owner to scheduler_owner;
alter function scheduler.record_answers owner to scheduler_owner;
alter function scheduler.invoke owner to scheduler_owner;

revoke all on schema scheduler from public;
grant usage on schema scheduler to scheduler_service, scheduler_cron;

grant execute on function scheduler.evaluate to scheduler_service;
grant select, insert, update, delete on scheduler.runs to scheduler_service;
grant select, update (last_run_evaluated, last_run_dispatched, last_run_suppressed)
   on scheduler.scenario_evaluation_config to scheduler_service;

grant execute on function scheduler.invoke to scheduler_cron;

-- What the roles need of what is not ours: to read, through the three views, the tables of the user. Run by every
-- `migrate`; whoever replaces a view, or turns row-level security on, runs it again.
--
-- Returns what it changed, and what it can't mend. The views become the owner's, and read with its rights. Where
-- row-level security is on, the owner gets a policy of its own: without one it would see no row and no error, and
-- every run would be complete over nobody. Raises 42501 where a right is not to be had.
create function scheduler.grant_rights()
returns setof text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  ours constant regclass[] := '{scheduler.mentors, scheduler.assignments, scheduler.activities}';
  view record;
  reader text;
  source record;
  policy text;
begin
  -- The lock of the migrations: of two grants on one table at once, the second fails.
  perform pg_advisory_xact_lock(2026112300);
  for view in
    select c.oid::regclass as relation,
           c.relkind = 'v' and c.relowner <> 'scheduler_owner'::regrole as is_foreign,
           exists (select from pg_options_to_table(c.reloptions) o
                    where case when o.option_name = 'security_invoker' then o.option_value::boolean end) as is_invokers
      from unnest(ours) u(oid)
      join pg_class c on c.oid = u.oid
  loop
    -- Somebody may have made a table of it, or a materialized view: those stay theirs.
    if view.is_foreign then
      execute format('alter view %s owner to scheduler_owner', view.relation);
      return next format('%s belongs to scheduler_owner', view.relation);
    end if;
    if view.is_invokers then
      execute format('alter view %s set (security_invoker = false)', view.relation);
      return next format('%s reads with the rights of scheduler_owner, not of its reader', view.relation);
    end if;
    foreach reader in array '{scheduler_owner, scheduler_service}'::text[] loop
      if not has_table_privilege(reader, view.relation, 'select') then
        execute format('grant select on %s to %I', view.relation, reader);
        return next format('%s reads %s', reader, view.relation);
      end if;
    end loop;
  end loop;

  for source in
    with recursive reading (view, relation) as (
      select r.ev_class, d.refobjid
        from pg_rewrite r
        join pg_depend d
          on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
        join pg_class v on v.oid = r.ev_class
       where v.relkind = 'v'
         and d.refobjid <> r.ev_class),
    read_somewhere (relation) as (
      select r.relation from reading r where r.view = any (ours)
       union
      select r.relation from read_somewhere s join reading r on r.view = s.relation)
    select c.oid::regclass as relation,
           c.relrowsecurity,
           s.readers,
           exists (select from pg_options_to_table(c.reloptions) o
                    where case when o.option_name = 'security_invoker' then o.option_value::boolean end) as is_invokers
      from (select distinct r.relation, 'scheduler_owner' as readers from reading r where r.view = any (ours)
             union all
            select u.oid, 'scheduler_owner, scheduler_service' from unnest(ours) u(oid)
             union all
            select i.relation, null -- lent what it needs by the view that reads it
              from read_somewhere i
             where i.relation not in (select r.relation from reading r where r.view = any (ours)))
           s(relation, readers)
      join pg_class c on c.oid = s.relation
     order by c.oid
  loop
    -- Whatever views lead to it, that is the role which runs the query, and not the owner of any of them.
    if source.is_invokers then
      return next format('%s reads with the rights of its reader (security_invoker), and scheduler_service has none '
                         'of the tables behind it: have scheduler.* read those themselves', source.relation);
    end if;
    continue when source.readers is null;
    if not has_table_privilege('scheduler_owner', source.relation, 'select') then
      execute format('grant select on %s to scheduler_owner', source.relation);
      -- Who may read it, and not lend that, gets a warning instead of an error.
      if not has_table_privilege('scheduler_owner', source.relation, 'select') then
        raise insufficient_privilege
          using message = format('%s can''t be opened to scheduler_owner by %s', source.relation, current_user);
      end if;
      return next format('scheduler_owner reads %s', source.relation);
    end if;
    if source.relrowsecurity and not exists (select from pg_policy p
                                              where p.polrelid = source.relation
                                                and p.polname = 'scheduler_owner_reads') then
      execute format('create policy scheduler_owner_reads on %s for select to %s using (true)',
                     source.relation, source.readers);
      return next format('%s sees every row of %s, by a policy', source.readers, source.relation);
    end if;
    for policy in
      select p.polname
        from pg_policy p
       where source.relrowsecurity
         and p.polrelid = source.relation
         and not p.polpermissive
         and p.polcmd in ('r', '*')
         and p.polroles && array[0, 'scheduler_owner'::regrole, 'scheduler_service'::regrole]::oid[]
    loop
      return next format('%s has the restrictive policy %s, which can hide rows from scheduler_owner: let it apply '
                         'to the roles it is meant for', source.relation, policy);
    end loop;
  end loop;

  -- Where everybody's right to connect was taken away.
  foreach reader in array '{scheduler_service, scheduler_cron}'::text[] loop
    if not has_database_privilege(reader, current_database(), 'connect') then
      execute format('grant connect on database %I to %I', current_database(), reader);
      return next format('%s connects to %s', reader, current_database());
    end if;
  end loop;

  -- Made by `migrate` itself, not by a migration.
  if to_regclass('scheduler.migrations') is not null
     and not has_table_privilege('scheduler_service', 'scheduler.migrations', 'select') then
    alter table scheduler.migrations owner to scheduler_owner;
    grant select on scheduler.migrations to scheduler_service;
  end if;
end $$;

-- What the tick needs of what is not ours: to post with pg_net, to read Vault. Run by every `cron install`.
--
-- Returns what it changed, and what it was not allowed to; that is looked up, because who may not grant a right but
-- has it gets a warning and no error. The secret waits in pg_net's queue until it is sent, and pg_net lets
-- everybody read and change that, and have triggers on it that run as whoever posts: everybody may go on posting,
-- and no longer touch what others post, or what they were answered.
create function scheduler.grant_tick_rights()
returns setof text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  found constant record := scheduler.find_extensions();
  schema oid;
  tables oid[];
  posting record;
  decrypt record;
  decrypted oid;
  public_posts boolean;
  public_reads boolean;
begin
  if found.pg_net then
    select n.oid into schema from pg_namespace n where n.nspname = 'net';
    select array_agg(c.oid) into tables
      from pg_class c
     where c.relnamespace = schema
       and c.relname in ('http_request_queue', '_http_response');
    begin
      grant usage on schema net to scheduler_owner;
      grant execute on all functions in schema net to scheduler_owner;
      grant insert, select on net.http_request_queue to scheduler_owner;
      grant select on net._http_response to scheduler_owner;
      grant usage on all sequences in schema net to scheduler_owner;
    exception
      when insufficient_privilege then
        null;
    end;
    select p.oid, p.prosecdef into posting
      from pg_proc p
     where p.pronamespace = schema
       and p.proname = 'http_post'
       and oidvectortypes(p.proargtypes) = 'text, jsonb, jsonb, jsonb, integer';
    if not (has_schema_privilege('scheduler_owner', schema, 'usage')
            and has_function_privilege('scheduler_owner', posting.oid, 'execute')
            and (select bool_and(has_table_privilege(
                          'scheduler_owner', t.oid,
                          case when c.relname = '_http_response' then 'select' else 'insert' end)
                        or (posting.prosecdef and c.relname <> '_http_response'))
                   from unnest(tables) t(oid)
                   join pg_class c on c.oid = t.oid)) then
      return next 'pg_net: not allowed to grant its use to scheduler_owner; ask who owns the schema net';
    end if;

    if scheduler.can_meddle(tables) then
      begin
        public_posts := has_table_privilege('public', 'net.http_request_queue', 'insert');
        public_reads := has_table_privilege('public', 'net._http_response', 'select');
        revoke all on net.http_request_queue, net._http_response from public;
        revoke update on all sequences in schema net from public;
        if public_posts then
          grant insert, select (id) on net.http_request_queue to public;
        end if;
        if public_reads then
          grant select on net._http_response to public;
        end if;
      exception
        when insufficient_privilege then
          null;
      end;
      return next case
        when scheduler.can_meddle(tables)
          then 'pg_net: not allowed to close its queue, so everybody can read the secret while it waits there'
        else 'pg_net: its queue is closed to everybody, because the secret waits there'
      end;
    end if;
    return query
      select format('pg_net: the trigger %s on %s is not pg_net''s, and sees what is posted: drop it',
                    t.tgname, t.tgrelid::regclass)
        from pg_trigger t
        join pg_proc p on p.oid = t.tgfoid
        join pg_roles o on o.oid = p.proowner
       where t.tgrelid = any (tables)
         and not t.tgisinternal
         and not o.rolsuper;
  end if;

  if found.vault then
    select n.oid into schema from pg_namespace n where n.nspname = 'vault';
    select c.oid into decrypted
      from pg_class c
     where c.relnamespace = schema
       and c.relname = 'decrypted_secrets';
    -- The view does not lend the right to decrypt.
    select p.oid::regprocedure as signature, p.oid into decrypt
      from pg_proc p
     where p.pronamespace = schema
       and p.proname = '_crypto_aead_det_decrypt';
    begin
      grant usage on schema vault to scheduler_owner;
      grant select on vault.decrypted_secrets to scheduler_owner;
      if decrypt.oid is not null then
        execute format('grant execute on function %s to scheduler_owner', decrypt.signature);
      end if;
    exception
      when insufficient_privilege then
        null;
    end;
    if not (has_schema_privilege('scheduler_owner', schema, 'usage')
            and has_table_privilege('scheduler_owner', decrypted, 'select')
            and coalesce(has_function_privilege('scheduler_owner', decrypt.oid, 'execute'), true)) then
      return next 'Vault: not allowed to grant its use to scheduler_owner; ask who owns the schema vault';
    end if;
  end if;
end $$;

-- Can everybody read or change what others post with pg_net, or what they were answered?
create function scheduler.can_meddle(tables oid[])
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select bool_or(has_table_privilege('public', t.oid, 'update, delete, truncate, references, trigger')
                 or has_any_column_privilege('public', t.oid, 'update')
                 or case when c.relname = '_http_response'
                      then has_table_privilege('public', t.oid, 'insert')
                      else has_column_privilege('public', t.oid, 'headers', 'select')
                    end)
    from unnest(tables) t(oid)
    join pg_class c on c.oid = t.oid
$$;

alter function scheduler.grant_rights owner to scheduler_owner;
alter function scheduler.grant_tick_rights owner to scheduler_owner;
alter function scheduler.can_meddle owner to scheduler_owner;
revoke all on function scheduler.grant_rights, scheduler.grant_tick_rights, scheduler.can_meddle from public;

select scheduler.grant_rights();
