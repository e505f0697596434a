-- Until become_administrator.sql, act as scheduler_cron: its jobs are its own, and it sees those alone. That it may
-- use pg_cron at all is for this transaction only. No parameters.
grant usage on schema cron to scheduler_cron;
set local role scheduler_cron
