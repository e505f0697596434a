-- Let scheduler_cron use pg_cron, until take_back_pg_cron.sql in the same transaction. No parameters.
grant usage on schema cron to scheduler_cron
