-- Until become_administrator.sql, act as scheduler_owner: what it can't read, the tick can't. No parameters.
set local role scheduler_owner
