-- Who may do what: three roles, and their rights.
--
-- scheduler_owner    owns all of this; nobody logs in as it
-- scheduler_service  what the process logs in as: it reads the three views, keeps the ledger, calls evaluate
-- scheduler_cron     what pg_cron runs the tick as: it calls invoke
--
-- Roles belong to the whole server, so another database of it may have made them already.
do $$
begin
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
alter table scheduler.invocations owner to scheduler_owner;
alter function scheduler.scenario_inactivity owner to scheduler_owner;
alter function scheduler.scenario_milestone owner to scheduler_owner;
alter function scheduler.scenario_expiry owner to scheduler_owner;
alter function scheduler.check_scenario_function owner to scheduler_owner;
alter function scheduler.can_override owner to scheduler_owner;
alter function scheduler.evaluate owner to scheduler_owner;
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
-- Returns what it changed. The views become the owner's, because a view reads with the rights of its owner. Where
-- row-level security is on, the owner gets a policy of its own: without one it would see no row and no error, and
-- every run would be complete over nobody.
create function scheduler.grant_rights()
returns setof text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  view regclass;
  source record;
begin
  foreach view in array '{scheduler.mentors, scheduler.assignments, scheduler.activities}'::regclass[] loop
    -- Somebody may have made a table of it, or a materialized view: those stay theirs.
    if (select c.relowner <> 'scheduler_owner'::regrole and c.relkind = 'v' from pg_class c where c.oid = view) then
      execute format('alter view %s owner to scheduler_owner', view);
      return next format('%s belongs to scheduler_owner', view);
    end if;
    if not has_table_privilege('scheduler_owner', view, 'select') then
      execute format('grant select on %s to scheduler_owner', view);
      return next format('scheduler_owner reads %s', view);
    end if;
    if not has_table_privilege('scheduler_service', view, 'select') then
      execute format('grant select on %s to scheduler_service', view);
      return next format('scheduler_service reads %s', view);
    end if;
  end loop;

  for source in
    select distinct c.oid::regclass as relation, n.oid::regnamespace as schema, c.relrowsecurity
      from pg_rewrite r
      join pg_depend d
        on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
      join pg_class c on c.oid = d.refobjid
      join pg_namespace n on n.oid = c.relnamespace
     where r.ev_class in ('scheduler.mentors'::regclass, 'scheduler.assignments'::regclass,
                          'scheduler.activities'::regclass)
       and d.refobjid <> r.ev_class
     order by 1
  loop
    if not has_schema_privilege('scheduler_owner', source.schema, 'usage') then
      execute format('grant usage on schema %s to scheduler_owner', source.schema);
      return next format('scheduler_owner uses the schema %s', source.schema);
    end if;
    if not has_table_privilege('scheduler_owner', source.relation, 'select') then
      execute format('grant select on %s to scheduler_owner', source.relation);
      return next format('scheduler_owner reads %s', source.relation);
    end if;
    if source.relrowsecurity and not exists (select from pg_policy p
                                              where p.polrelid = source.relation
                                                and p.polname = 'scheduler_owner_reads') then
      execute format('create policy scheduler_owner_reads on %s for select to scheduler_owner using (true)',
                     source.relation);
      return next format('scheduler_owner sees every row of %s, by a policy', source.relation);
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
-- Returns what it changed, and what it was not allowed to. The secret waits in pg_net's queue until it is sent,
-- and pg_net lets everybody read that: everybody may go on posting, and no longer read what others post.
create function scheduler.grant_tick_rights()
returns setof text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('net.http_request_queue') is not null then
    begin
      grant usage on schema net to scheduler_owner;
      grant execute on all functions in schema net to scheduler_owner;
      grant insert, select on net.http_request_queue to scheduler_owner;
      grant select on net._http_response to scheduler_owner;
      grant usage on all sequences in schema net to scheduler_owner;
      if has_column_privilege('public', 'net.http_request_queue', 'headers', 'select') then
        revoke all on net.http_request_queue from public;
        grant insert, select (id) on net.http_request_queue to public;
        return next case
          when has_column_privilege('public', 'net.http_request_queue', 'headers', 'select')
            then 'pg_net: not allowed to close its queue, so everybody can read the secret while it waits there'
          else 'pg_net: its queue is closed to everybody, because the secret waits there'
        end;
      end if;
    exception
      when insufficient_privilege then
        return next 'pg_net: not allowed to grant its use to scheduler_owner; ask who owns the schema net';
    end;
  end if;
  if to_regclass('vault.decrypted_secrets') is not null then
    begin
      grant usage on schema vault to scheduler_owner;
      grant select on vault.decrypted_secrets to scheduler_owner;
      -- The view does not lend the right to decrypt.
      if to_regprocedure('vault._crypto_aead_det_decrypt(bytea, bytea, bigint, bytea, bytea)') is not null then
        grant execute on function vault._crypto_aead_det_decrypt(bytea, bytea, bigint, bytea, bytea)
           to scheduler_owner;
      end if;
    exception
      when insufficient_privilege then
        return next 'Vault: not allowed to grant its use to scheduler_owner; ask who owns the schema vault';
    end;
  end if;
end $$;

alter function scheduler.grant_rights owner to scheduler_owner;
alter function scheduler.grant_tick_rights owner to scheduler_owner;
revoke all on function scheduler.grant_rights, scheduler.grant_tick_rights from public;

select scheduler.grant_rights();
