-- Forget where the tick went to, and the secret in the table. No parameters.
--
-- Returns one row: secret_name (in Vault), null if there was no URL; had_fallback, whether the table had the secret.
with settings as (delete from scheduler.settings returning secret_name),
fallback as (delete from scheduler.fallback_secret returning true)
select (select s.secret_name from settings s) as secret_name,
       exists (select from fallback) as had_fallback
