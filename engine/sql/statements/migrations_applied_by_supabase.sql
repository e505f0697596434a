-- The migrations that `supabase db push` applied, ours among them or not. No parameters.
--
-- Returns version.
select version from supabase_migrations.schema_migrations
