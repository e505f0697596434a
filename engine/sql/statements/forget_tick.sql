-- Forget where the tick went to, and the secret with it. No parameters.
--
-- Returns secret_name, if there was a row.
with forgotten as (delete from scheduler.fallback_secret)
delete from scheduler.settings returning secret_name
