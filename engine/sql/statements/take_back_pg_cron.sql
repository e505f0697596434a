-- Undo lend_pg_cron.sql. No parameters.
revoke usage on schema cron from scheduler_cron
