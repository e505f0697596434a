-- What a migration has to know before it begins. No parameters.
--
-- Returns one row: server_version (150004 is 15.4), is_prepared (the bookkeeping is there),
-- is_known_to_supabase (its command line has applied migrations here).
select current_setting('server_version_num')::int as server_version,
       to_regclass('scheduler.migrations') is not null as is_prepared,
       to_regclass('supabase_migrations.schema_migrations') is not null as is_known_to_supabase
