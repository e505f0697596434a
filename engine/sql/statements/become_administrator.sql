-- Undo become_cron.sql. No parameters.
reset role;
revoke usage on schema cron from scheduler_cron
