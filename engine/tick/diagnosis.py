"""This file says in one line what is wrong with the tick, and what to do: the nearest cause alone."""

from __future__ import annotations

from engine.tick.jobs import TICK, longest_pause
from engine.tick.status import Invocation, TickStatus

# When pg_cron has stopped: so many ticks in a row did not come, the last of them for so many seconds. A
# server that is restarted misses one.
TICKS_MISSED, LATENESS = 2, 60.0

# What a status of HTTP means here. Others are said as they are.
_ANSWERS = {
    401: "the service refuses the secret (401): run `cron install` again with the service's SCHEDULER_SECRET",
    403: "something before the service refuses the post (403): look at the proxy or firewall on the way",
    404: "nothing is at the URL (404): it must end in /run; run `cron install --url` again",
    405: "the URL takes no POST (405): it must end in /run; run `cron install --url` again",
    422: "the service does not know what the job asks for (422, {error}): run `cron install` again",
    500: "the service failed (500): its log says why",
    503: "the service could not begin a run (503, {error}): its log and /readyz say why",
}


def diagnose(status: TickStatus) -> str | None:
    """What is wrong with the tick, in one line, or None: as far as can be seen, somebody is being looked at.

    A single 409 is not wrong: the run before was still under way. Nor is a run that ended partial: the
    service has done what it could, and the next one begins where it stopped.
    """
    return diagnose_jobs(status) or diagnose_posting(status) or diagnose_ticks(status)


def diagnose_jobs(status: TickStatus) -> str | None:
    """What is wrong with what pg_cron was told to do."""
    if status.pg_cron is None:
        return "pg_cron is not in this database: run `create extension pg_cron`"
    if not status.jobs:
        return "no job ticks this database: run `cron install`"
    asleep = [job.name for job in status.jobs if not job.active]
    if asleep:
        return f"the job {asleep[0]} is switched off: run `cron install` again"
    names = {job.name for job in status.jobs}
    if TICK not in names:
        left_out = [each for each in status.enabled_types if f"{TICK} {each}" not in names]
        if left_out:
            return f"no job ticks the scenario {left_out[0]}: run `cron install --per-scenario` again"
    return None


def diagnose_posting(status: TickStatus) -> str | None:
    """What is missing for a tick to be posted."""
    if status.url is None:
        return "there is a job, but no URL to post to: run `cron install`"
    if not (status.pg_net or status.plpython3u):
        return "nothing here can post: run `create extension pg_net`, then `cron install`"
    return None


def diagnose_ticks(status: TickStatus) -> str | None:
    """What came of the ticks: not run, not answered, or not as it should be."""
    return _not_run(status) or _stopped(status) or _not_answered(status)


def _not_run(status: TickStatus) -> str | None:
    for job in status.jobs:
        if job.status == "failed":
            message = (job.message or "").strip().splitlines() or ["it does not say why"]
            return f"pg_cron could not run the job {job.name}: {message[0]}"
    if not status.invocations and all(job.started_at is None for job in status.jobs):
        return (
            "no tick so far: wait for the first minute of the schedule; if none comes, look whether "
            "pg_cron's worker runs (shared_preload_libraries) and may log in (cron.use_background_workers)"
        )
    return None


def _stopped(status: TickStatus) -> str | None:
    for job in status.jobs:
        pause = longest_pause(job.schedule)
        if pause is not None and job.age is not None and job.age > TICKS_MISSED * pause + LATENESS:
            return (
                f"pg_cron has not run the job {job.name} for {job.age / 60:.0f} minutes, though its schedule "
                f"is {job.schedule}: look whether its worker runs ('pg_cron launcher' in pg_stat_activity)"
            )
    return None


def _not_answered(status: TickStatus) -> str | None:
    settled = [each for each in status.invocations if each.answered_at is not None or each.is_overdue]
    if not settled:
        return None
    latest, *before = settled
    if latest.status_code == 409 and before and before[0].status_code == 409:
        return (
            "ticks come while a run is still under way (409, twice in a row): make the schedule's interval "
            "longer than a run takes"
        )
    return _wrong_with(latest)


def _wrong_with(invocation: Invocation) -> str | None:
    if invocation.answered_at is None:
        return (
            "pg_net has not brought an answer to the last tick: its worker may be stopped "
            "(`select net.worker_restart()`), or be held up by other requests"
        )
    status = invocation.status_code
    if status is None:
        return (
            f"the service did not answer the last tick ({invocation.error}): look whether it runs, and "
            "whether the database's server reaches the URL"
        )
    if status == 409:
        return None
    if 200 <= status < 300:
        if invocation.run_id is None:
            return "somebody else answers at the URL: run `cron install --url` with the service's own"
        return "the last run failed: the service's log says why" if invocation.verdict == "failed" else None
    if 300 <= status < 400:
        return f"the URL redirects ({status}), which is not followed: give `cron install` the final one"
    said = _ANSWERS.get(status, "the service answered the last tick with {status}: its log says why")
    return said.format(error=invocation.error or "no reason given", status=status)
