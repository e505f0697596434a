-- A stand-in for pg_net, which no package has: its names, its signature, and the rights that its versions from 0.11.1
-- on give to everybody. Its worker is played by tests/tick/pg_net_worker.py. As with pg_net, a request can be seen, and
-- the worker hears of it, once the transaction is committed, and nothing survives a crash.
create schema net;

create domain net.http_method as text check (upper(value) in ('GET', 'POST', 'DELETE'));

create unlogged table net.http_request_queue (
  id bigserial,
  method net.http_method not null,
  url text not null,
  headers jsonb,
  body bytea,
  timeout_milliseconds integer not null
);

create unlogged table net._http_response (
  id bigint,
  status_code integer,
  content_type text,
  headers jsonb,
  content text,
  timed_out boolean,
  error_msg text,
  created timestamptz not null default now()
);

create function net.http_post(
  url text,
  body jsonb default '{}',
  params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds integer default 5000)
returns bigint
language plpgsql volatile
as $$
declare
  request bigint;
begin
  if headers ->> 'Content-Type' is distinct from 'application/json' or params <> '{}' or body is null then
    raise exception 'this stand-in posts JSON, and nothing in the query';
  end if;
  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values ('POST', http_post.url, http_post.headers, convert_to(http_post.body::text, 'UTF8'),
          http_post.timeout_milliseconds)
  returning id into request;
  perform pg_notify('pg_net_wake', '');
  return request;
end $$;

grant usage on schema net to public;
grant all on all tables in schema net to public;
grant all on all sequences in schema net to public;
