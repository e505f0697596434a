"""This file is every error that leaves the engine, written for people: what is wrong, and what to do."""

from __future__ import annotations


class SchedulerError(Exception):
    """The base of all below. `str(error)` is written for the person who operates the service."""


class ConfigurationError(SchedulerError):
    """The settings can't be used. `faults` holds one sentence per fault, all of them at once."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class EmbeddedPostgresError(SchedulerError):
    """No embedded Postgres could be started."""


class MigrationError(SchedulerError):
    """The schema can't be brought up to date; nothing of the file that failed was kept."""


class TickError(SchedulerError):
    """pg_cron can't be made to tick as asked; nothing was changed."""


class InvalidTick(TickError):
    """What was asked for can be no tick: no such schedule, or no URL that it may be sent to."""


class DatabaseUnavailable(SchedulerError):
    """Postgres, or what the mentors are read from instead, can't be used, or was lost before it answered.

    Whether a statement under way took effect is not known to the caller. Asking again makes sense, but not
    before `retry_after` seconds where whoever was asked has named them.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StatementFailed(SchedulerError):
    """Postgres refused one statement; the connection is fine.

    `sqlstate` is the five-character code of Postgres's appendix A. The server's own message is kept out
    of `str()`, because it can quote a row.
    """

    def __init__(self, statement: str, sqlstate: str) -> None:
        super().__init__(f"Postgres refused the statement {statement} (SQLSTATE {sqlstate}).")
        self.statement = statement
        self.sqlstate = sqlstate


class InvocationFailed(SchedulerError):
    """The trigger engine did not evaluate a chunk.

    `error_class` is a short fixed word for counting, never a text from outside. `retryable`: the same
    call may well succeed a moment later, not before `retry_after` seconds where the engine named them.
    `bisectable`: the fault may lie in one mentor of the chunk, so its halves are worth trying.
    """

    def __init__(
        self,
        error_class: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        bisectable: bool = False,
    ) -> None:
        super().__init__(f"The trigger engine did not evaluate a chunk: {error_class}.")
        self.error_class = error_class
        self.retryable = retryable
        self.retry_after = retry_after
        self.bisectable = bisectable


class MentorNotFound(SchedulerError):
    """The view has no mentor of the id that was asked about. Says no id: errors are logged."""


class RequestRefused(SchedulerError):
    """A run was asked for that can't be done as asked; asking again will not help."""


class UnknownScenarioType(RequestRefused):
    """A scenario type that does not exist here, or is disabled."""


class DryRunUnsupported(RequestRefused):
    """The trigger engine is not known to honour a dry run, so it might send."""


class InvalidOverride(RequestRefused):
    """Another configuration was to be tried that can't be: no such scenario or param, or no such value."""


class OverridesUnsupported(RequestRefused):
    """Another configuration can only be tried in a dry run, by the trigger engine in the database."""


class NotNow(SchedulerError):
    """A run can't begin at this moment; `retry_after` says in how many seconds to ask again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RunInProgress(NotNow):
    """Another run is under way."""


class Draining(NotNow):
    """The service is shutting down and begins no run."""


class NotReady(NotNow):
    """The database is there, and not as this version needs it."""


class FleetUnavailable(NotNow):
    """No shard can be handed to a worker, or taken by one: what is between them can't be reached."""


class RunFailed(SchedulerError):
    """A bug ended the run, or the end of the service; other runs are not affected."""
