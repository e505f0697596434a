-- What there is here to tick with. No parameters.
--
-- Returns one row: pg_cron and pg_net (installed versions, null if not), plpython3u (its replacement of pg_net was
-- installed), vault (there is a Vault), is_migrated (scheduler.invoke is there), database (this one), cron_database (in
-- which pg_cron can be installed, null where it is not loaded or that can't be seen).
--
-- pg_net and Vault count as in scheduler.find_extensions, which is not there before the migration: only if they
-- are a superuser's.
select (select e.extversion from pg_extension e where e.extname = 'pg_cron') as pg_cron,
       (select coalesce((select e.extversion from pg_extension e where e.extname = 'pg_net'), 'unknown')
          from pg_proc p
          join pg_namespace n on n.oid = p.pronamespace
          join pg_roles o on o.oid = p.proowner
         where n.nspname = 'net'
           and p.proname = 'http_post'
           and oidvectortypes(p.proargtypes) = 'text, jsonb, jsonb, jsonb, integer'
           and o.rolsuper) as pg_net,
       to_regprocedure('scheduler.post_and_wait(text, text, text, integer)') is not null as plpython3u,
       exists (select
                 from pg_class c
                 join pg_namespace n on n.oid = c.relnamespace
                 join pg_roles o on o.oid = c.relowner
                where n.nspname = 'vault'
                  and c.relname = 'decrypted_secrets'
                  and o.rolsuper) as vault,
       to_regprocedure('scheduler.invoke(text[])') is not null as is_migrated,
       current_database()::text as database,
       -- current_setting() would be refused to who is no superuser.
       (select s.setting from pg_settings s where s.name = 'cron.database_name') as cron_database
