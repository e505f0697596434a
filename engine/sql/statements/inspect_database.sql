-- What a migration has to know before it begins. No parameters.
--
-- Returns one row: server_version (150004 is 15.4), is_prepared (the bookkeeping is there),
-- is_known_to_supabase (its command line has applied migrations here).
select current_setting('server_version_num')::int as server_version,
       to_regclass('scheduler.migrations') is not null as is_prepared,
       -- A table: a view would be somebody's, and run what they wrote as whoever migrates.
       exists (select
                 from pg_class c
                where c.oid = to_regclass('supabase_migrations.schema_migrations')
                  and c.relkind = 'r') as is_known_to_supabase
