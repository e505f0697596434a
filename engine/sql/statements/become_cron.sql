-- Until become_administrator.sql, act as scheduler_cron: its jobs are its own, and it sees those alone. No parameters.
set local role scheduler_cron
