"""The job that removes what pg_cron keeps of each tick: it takes what is ours and old, and nothing else."""

from __future__ import annotations

from engine.database import Database
from tests.tick.test_install import install
from tests.tick.ticking import fetch, run_script

PURGE = "select jobid, command from cron.job where jobname = 'scenario-scheduler purge'"
KEEP = """
    insert into cron.job_run_details (jobid, runid, database, username, command, status, start_time, end_time)
    select job, row_number() over (), 'postgres', username, which, 'succeeded', began, ended
      from (values (1, 'scheduler_cron', 'a tick, old', now() - interval '8 days', now() - interval '8 days'),
                   (1, 'scheduler_cron', 'a tick, old, cut', now() - interval '8 days', null),
                   (1, 'scheduler_cron', 'a tick, new', now() - interval '6 days', now() - interval '6 days'),
                   (1, 'scheduler_cron', 'a tick, long', now() - interval '8 days', now()),
                   (1, 'scheduler_cron', 'a tick, not begun', null, null),
                   ({purge}, 'app', 'a purge, old', now() - interval '8 days', now() - interval '8 days'),
                   ({purge}, 'app', 'a purge, new', now(), now()),
                   ({other}, 'app', 'another''s, old', now() - interval '8 days', now() - interval '8 days'))
           kept(job, username, which, began, ended)
"""


async def test_the_purge_removes_what_is_ours_and_older_than_a_week(administrator: Database) -> None:
    await install(administrator)
    [(purge, command)] = await fetch(administrator, PURGE)
    await run_script(administrator, KEEP.format(purge=purge, other=purge + 1))
    await run_script(administrator, command)
    left = await fetch(administrator, "select command from cron.job_run_details order by 1")
    assert [which for (which,) in left] == [
        *("a purge, new", "a tick, long", "a tick, new", "a tick, not begun", "another's, old"),
    ]
