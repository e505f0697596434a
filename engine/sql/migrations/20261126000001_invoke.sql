-- The tick, seen from the database: where it goes, when it went, what came back. pg_cron runs scheduler.invoke().

-- One row, written by `scenario-scheduler cron install`. Nobody but the owner reads it.
create table scheduler.settings (
  singleton boolean primary key default true check (singleton),
  -- https, or http to this machine. Printable ASCII without `@`, `\` and `#`, and of a host only what is in every
  -- host: what parsers take for its end differs between them, and a user part hides it.
  url text not null check (
    url ~ '^[\x21-\x7e]+$' and url !~ '[@\\#]'
    and (url ~ '^https://([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?]|$)'
         or url ~ '^http://(localhost|127(\.(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}|\[::1\])(:[0-9]{1,5})?([/?]|$)')
    and coalesce(substring(url from '^https?://(?:\[[^]]*\]|[^][/?:]+):([0-9]+)')::numeric, 1) between 1 and 65535),
  -- Above the platform limit of 30 s: a caller who leaves earlier never hears how the run ended.
  timeout_ms integer not null default 45000 check (timeout_ms between 1000 and 300000),
  secret_name text not null default 'scheduler_secret', -- in Vault
  -- When `cron install` last had a say: pg_cron does not know since when a job is there, or has its schedule.
  installed_at timestamptz not null default now()
);

-- The secret, one row, for where there is no Vault. A table of its own, with nothing to violate but that it is one
-- row: the error of a violated constraint quotes the whole row, to the client and to the server's log.
create table scheduler.fallback_secret (
  singleton boolean primary key default true check (singleton),
  secret text not null
);

-- No policy: a right granted by mistake still shows no row.
alter table scheduler.settings enable row level security;
alter table scheduler.fallback_secret enable row level security;

-- A row for every tick, kept for 30 days; pg_net forgets its answers after six hours.
create table scheduler.invocations (
  id bigint generated always as identity primary key,
  request_id bigint, -- pg_net's; null over plpython3u, which has its answer at once
  invoked_at timestamptz not null default now(),
  invoked_by name not null default session_user,
  scenario_types text[], -- null for every enabled one
  answered_at timestamptz,
  status_code integer, -- of HTTP; null if there was no answer, then `error` says why
  error text, -- pg_net's words, or the code of an answer that is an error
  run_id uuid -- of the summary that was the answer
);

-- Serves invoke and record_answers: what is too old, and what still waits for its answer.
create index invocations_invoked_at on scheduler.invocations (invoked_at);
create index invocations_unanswered on scheduler.invocations (invoked_at)
 where answered_at is null;

-- Are pg_net and Vault here? What bears their names counts only if it is a superuser's, as an extension's is: anyone
-- who may create a schema could have made it, and the secret would be handed to them.
create function scheduler.find_extensions(out pg_net boolean, out vault boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select
                   from pg_proc p
                   join pg_namespace n on n.oid = p.pronamespace
                   join pg_roles o on o.oid = p.proowner
                  where n.nspname = 'net'
                    and p.proname = 'http_post'
                    and oidvectortypes(p.proargtypes) = 'text, jsonb, jsonb, jsonb, integer'
                    and o.rolsuper),
         exists (select
                   from pg_class c
                   join pg_namespace n on n.oid = c.relnamespace
                   join pg_roles o on o.oid = c.relowner
                  where n.nspname = 'vault'
                    and c.relname = 'decrypted_secrets'
                    and o.rolsuper)
$$;

-- The secret of the tick, from Vault where it has one that the owner may read, else from the fallback; null if
-- there is none.
create function scheduler.read_secret()
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  found_secret text;
begin
  if (scheduler.find_extensions()).vault then
    begin
      execute 'select d.decrypted_secret
                 from scheduler.settings s
                 join vault.decrypted_secrets d on d.name = s.secret_name' into found_secret;
    exception
      when insufficient_privilege then
        null;
    end;
  end if;
  return coalesce(found_secret, (select f.secret from scheduler.fallback_secret f));
end $$;

-- What an answer's body says, in two columns: the run of a summary, or the code of an error. Both null for a body
-- that is neither, which some other server has sent: whatever it is, it must not end the tick that reads it.
create function scheduler.read_answer(body text, out run_id uuid, out error text)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- No answer of the service is as long, and of another server's the parser need not see gigabytes.
  if octet_length(body) > 65536 then
    return;
  end if;
  -- Nothing but a code, such as run_in_progress: another server could say the secret that it was sent.
  error := substring(body::jsonb ->> 'error' from '^[a-z_]{1,60}$');
  run_id := body::jsonb ->> 'run_id';
exception
  when data_exception or program_limit_exceeded then -- not JSON, or nested too deep; no uuid
    return;
end $$;

-- Copy the answers that pg_net has by this time, before it forgets them.
--
-- pg_net's counter begins again after a crash, so a request is known by its number and its time: that of the answer
-- is when pg_net began to look for requests, which a quick tick can be a moment behind.
create function scheduler.record_answers()
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not (scheduler.find_extensions()).pg_net then
    return;
  end if;
  update scheduler.invocations i
     set answered_at = r.created,
         status_code = r.status_code,
         error = coalesce(left(r.error_msg, 300), case when r.timed_out then 'timeout' end, a.error),
         run_id = a.run_id
    from net._http_response r
   cross join lateral scheduler.read_answer(r.content) a
   where i.answered_at is null
     and i.request_id = r.id
     and i.invoked_at > now() - interval '6 hours'
     and r.created >= i.invoked_at - interval '1 second'
     and r.created < i.invoked_at + interval '10 minutes';
end $$;

-- Tick: POST to the service, and keep a row of it. What pg_cron runs.
--
-- scenario_types  null for every enabled one
--
-- Returns the id of the row. Raises 55000 where there is no URL or no secret, or one that is no secret of ours. Over
-- pg_net the request is sent when the transaction commits, and the next tick brings its answer into the row; over
-- plpython3u the answer is waited for, so that the transaction lasts as long as the run.
create function scheduler.invoke(scenario_types text[] default null)
returns bigint
language plpgsql volatile security definer
-- pg_temp is searched first unless it is named: for types too, and a caller's domain `text` saw the secret.
set search_path = pg_catalog, pg_temp
-- The caller may have plans sent to itself, and the secret is a constant in one.
set debug_print_parse = off
set debug_print_rewritten = off
set debug_print_plan = off
as $$
declare
  settings scheduler.settings;
  secret text;
  headers jsonb;
  body jsonb;
  invocation bigint;
  request bigint;
begin
  select * into settings from scheduler.settings s;
  secret := scheduler.read_secret();
  if settings.url is null or secret is null then
    raise object_not_in_prerequisite_state
      using message = 'the tick has no URL or no secret',
            hint = 'Run `scenario-scheduler cron install` with SCHEDULER_SECRET set.';
  end if;
  -- In Vault there can be anything; what is no hex may end one header and begin another.
  if secret !~ '^[0-9A-Fa-f]{32,}$' then
    raise object_not_in_prerequisite_state
      using message = 'the secret of the tick is not 32 hex digits or more',
            hint = 'Run `scenario-scheduler cron install` with the service''s SCHEDULER_SECRET.';
  end if;
  -- To look back must not keep anybody from being looked at.
  begin
    perform scheduler.record_answers();
  exception
    when others then
      raise warning 'the answers to earlier ticks can''t be read: %', sqlerrm;
  end;
  delete from scheduler.invocations i
   where i.id in (select o.id
                    from scheduler.invocations o
                   where o.invoked_at < now() - interval '30 days'
                   order by o.invoked_at
                   limit 1000);

  insert into scheduler.invocations (scenario_types) values (invoke.scenario_types) returning id into invocation;
  headers := jsonb_build_object('Content-Type', 'application/json', 'X-Scheduler-Secret', secret);
  body := jsonb_strip_nulls(jsonb_build_object(
    'source', 'pg_cron', 'invoked_at', now(), 'scenario_types', to_jsonb(invoke.scenario_types)));
  if (scheduler.find_extensions()).pg_net then
    request := net.http_post(
      url => settings.url, body => body, headers => headers, timeout_milliseconds => settings.timeout_ms);
    update scheduler.invocations i set request_id = request where i.id = invocation;
  elsif to_regprocedure('scheduler.post_and_wait(text, text, text, integer)') is not null then
    update scheduler.invocations i
       set answered_at = clock_timestamp(),
           status_code = p.status_code,
           error = coalesce(p.error, a.error),
           run_id = a.run_id
      from scheduler.post_and_wait(settings.url, headers::text, body::text, settings.timeout_ms) p
     cross join lateral scheduler.read_answer(p.body_of_answer) a
     where i.id = invocation;
  else
    raise object_not_in_prerequisite_state
      using message = 'nothing here can post: pg_net is missing, and its replacement was not asked for',
            hint = 'Run `create extension pg_net`, or `scenario-scheduler cron install --with-plpython3u`.';
  end if;
  return invocation;
end $$;

revoke all on function scheduler.find_extensions, scheduler.read_secret, scheduler.read_answer,
  scheduler.record_answers, scheduler.invoke
  from public;
