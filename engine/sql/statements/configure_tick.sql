-- Where the tick goes to, and that it was installed at this moment.
--
-- $1 url        text
-- $2 timeout_ms integer  above the platform limit
--
-- Returns secret_name.
insert into scheduler.settings as s (url, timeout_ms)
values ($1, $2)
    on conflict (singleton) do update
   set url = excluded.url,
       timeout_ms = excluded.timeout_ms,
       installed_at = now()
returning s.secret_name
