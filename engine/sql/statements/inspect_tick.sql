-- What there is here to tick with. No parameters.
--
-- Returns one row: pg_cron and pg_net (installed versions, null if not), plpython3u (its replacement of pg_net was
-- installed), vault (there is a Vault), is_migrated (scheduler.invoke is there), cron_database (in which pg_cron
-- can be installed, null where it is not loaded or that can't be seen).
select (select e.extversion from pg_extension e where e.extname = 'pg_cron') as pg_cron,
       case when to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') is not null
            then coalesce((select e.extversion from pg_extension e where e.extname = 'pg_net'), 'unknown')
       end as pg_net,
       to_regprocedure('scheduler.post_and_wait(text, text, text, integer)') is not null as plpython3u,
       to_regclass('vault.decrypted_secrets') is not null as vault,
       to_regprocedure('scheduler.invoke(text[])') is not null as is_migrated,
       current_setting('cron.database_name', true) as cron_database
