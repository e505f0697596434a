"""This file says in one line what is wrong with the tick, and what to do: the nearest cause alone."""

from __future__ import annotations

from engine.tick.home import why_no_pg_cron
from engine.tick.jobs import longest_pause
from engine.tick.status import Invocation, JobStatus, TickStatus

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


def describe_first_ticks(status: TickStatus) -> str | None:
    """Which jobs have not ticked yet, or None. That is not wrong before `diagnose` says so: it takes time."""
    waiting = [job.name for job in status.jobs if not _ages_of_ticks(job, status)]
    if len(waiting) == len(status.jobs):
        return "the first tick is still to come" if waiting else None
    return f"still to come is the first tick of: {', '.join(waiting)}" if waiting else None


def diagnose_jobs(status: TickStatus) -> str | None:
    """What is wrong with what pg_cron was told to do."""
    if status.pg_cron is None:
        return why_no_pg_cron(status.database, status.cron_database)
    if not status.jobs:
        return "no job ticks this database: run `cron install`"
    asleep = [job.name for job in status.jobs if not job.active]
    if asleep:
        return f"the job {asleep[0]} is switched off: run `cron install` again"
    ticked = {each for job in status.jobs for each in job.scenario_types or status.enabled_types}
    left_out = [each for each in status.enabled_types if each not in ticked]
    if left_out:
        return f"no job ticks the scenario {left_out[0]}: run `cron install --per-scenario` again"
    for job in status.jobs:
        unwanted = [each for each in job.scenario_types or () if each not in status.enabled_types]
        if unwanted:
            return (
                f"the job {job.name} ticks the scenario {unwanted[0]}, which is not enabled, and is refused "
                "each time: enable it, or run `cron install --per-scenario` again"
            )
    return None


def diagnose_posting(status: TickStatus) -> str | None:
    """What is missing for a tick to be posted."""
    if status.url is None:
        return "there is a job, but no URL to post to: run `cron install`"
    if not (status.pg_net or status.plpython3u):
        return "nothing here can post: run `create extension pg_net`, then `cron install`"
    return None


def diagnose_ticks(status: TickStatus) -> str | None:
    """What came of the ticks: not run, not answered, or not as it should be. For each job by itself."""
    if not status.jobs:
        return None if status.invocations else "no tick so far: run `cron install`"
    return _failed(status) or _stopped(status) or _not_answered(status)


def _failed(status: TickStatus) -> str | None:
    for job in status.jobs:
        ended = next((run for run in job.runs if run.status in ("succeeded", "failed")), None)
        if ended is not None and ended.status == "failed":
            message = (ended.message or "").strip().splitlines() or ["it does not say why"]
            return f"pg_cron could not run the job {job.name}: {message[0]}"
    return None


def _stopped(status: TickStatus) -> str | None:
    for job in status.jobs:
        ticks = _ages_of_ticks(job, status)
        # Installing begins the wait anew: before, the job may have had another schedule, or not been there.
        known = ticks if status.installed_age is None else [*ticks, status.installed_age]
        if not known:
            return "no tick so far: run `cron install`"
        pause = longest_pause(job.schedule)
        if pause is None or min(known) <= TICKS_MISSED * pause + LATENESS:
            continue
        if ticks:
            return (
                f"pg_cron has not run the job {job.name} for {_long(min(ticks))}, though its schedule is "
                f"{job.schedule}: look whether its worker runs ('pg_cron launcher' in pg_stat_activity)"
            )
        return (
            f"no tick so far of the job {job.name}, though it was installed {_long(min(known))} ago and its "
            f"schedule is {job.schedule}: look whether pg_cron's worker runs (shared_preload_libraries) and "
            "may log in (cron.use_background_workers)"
        )
    return None


def _ages_of_ticks(job: JobStatus, status: TickStatus) -> list[float]:
    """Of what shows that a job has ticked, its latest run and its latest invocation.

    Either can be missing: pg_cron keeps no runs with cron.log_run off, nor when its extension was made anew,
    and a tick that failed leaves no invocation.
    """
    runs = [run.age for run in job.runs if run.age is not None]
    return [*runs[:1], *[each.age for each in _of_job(job, status)[:1]]]


def _of_job(job: JobStatus, status: TickStatus) -> list[Invocation]:
    """The invocations that a job is judged by: those for the same scenario types, latest first."""
    return [each for each in status.invocations if _types(each) == _types(job)]


def _types(each: Invocation | JobStatus) -> tuple[str, ...] | None:
    return None if each.scenario_types is None else tuple(each.scenario_types)


def _long(seconds: float) -> str:
    """In minutes for two hours, in hours for two days, else in days."""
    for unit, length, most in (("minutes", 60.0, 120), ("hours", 3600.0, 48)):
        if seconds < length * most:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _not_answered(status: TickStatus) -> str | None:
    for job in status.jobs:
        settled = [each for each in _of_job(job, status) if each.answered_at is not None or each.is_overdue]
        if settled and (fault := _wrong_with_latest(settled)):
            return fault if job.scenario_types is None else f"{job.name}: {fault}"
    return None


def _wrong_with_latest(settled: list[Invocation]) -> str | None:
    latest, *before = settled
    if latest.status_code != 409 or not before:
        return _wrong_with(latest)
    if before[0].status_code == 409:
        return (
            "ticks come while a run is still under way (409, twice in a row): make the schedule's interval "
            "longer than a run takes"
        )
    return _wrong_with(before[0])  # a 409 says nothing of what was wrong before it


def _wrong_with(invocation: Invocation) -> str | None:
    if invocation.answered_at is None:
        return (
            "pg_net has not brought an answer to the last tick: its worker may be stopped "
            "(`select net.worker_restart()`), or be held up by other requests"
        )
    status = invocation.status_code
    if status is None:
        reason = " ".join((invocation.error or "no reason given").split())
        return (
            f"the service did not answer the last tick ({reason}): look whether it runs, and "
            "whether the database's server reaches the URL"
        )
    if status == 409:
        return None
    if 200 <= status < 300:
        if invocation.run_id is None:
            return "somebody else answers at the URL: run `cron install --url` with the service's own"
        if invocation.verdict is None:  # runs are kept for longer than invocations, so it is not for its age
            return (
                "the service works in another database, for its run is not in this one's ledger: start it "
                "with the DATABASE_URL of this one, or install the tick in its own"
            )
        return "the last run failed: the service's log says why" if invocation.verdict == "failed" else None
    if 300 <= status < 400:
        return f"the URL redirects ({status}), which is not followed: give `cron install` the final one"
    said = _ANSWERS.get(status, "the service answered the last tick with {status}: its log says why")
    return said.format(error=invocation.error or "no reason given", status=status)
