"""This file is what is examined: the settings, and the database as each of its roles sees it.

What the service may do is tried as a login of its own, where there is one. What it may not see, an
administrator looks at, as the role whose business it is. Nothing that is done in here is kept.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

from pydantic import SecretStr

from engine.database import Database, Transaction, open_database
from engine.errors import DatabaseUnavailable, SchedulerError
from engine.settings import Settings
from engine.statements import Statement, load_statement
from engine.tick.status import TickStatus, read_tick_status

T = TypeVar("T")

SERVICE = "scheduler_service"

_LOOK_AT_LOGIN = load_statement("look_at_login")
_BECOME_SERVICE = load_statement("become_service")
_BECOME_OWNER = load_statement("become_owner")
_BECOME_CRON = load_statement("become_cron")


@dataclass(frozen=True, slots=True)
class Login:
    """Who a URL logs in as, with a pool of that login."""

    database: Database
    name: str
    is_superuser: bool


class Installation:
    """Made by `open_installation`. `service` and `administrator` are logins, or why there is none.

    `clock` is this machine's: seconds since 1970 in UTC.
    """

    def __init__(
        self,
        settings: Settings,
        service: Login | SchedulerError,
        administrator: Login | SchedulerError,
        clock: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.service = service
        self.administrator = administrator
        self.clock = clock
        self._seen: dict[str, object] = {}

    @asynccontextmanager
    async def open_as_service(self) -> AsyncIterator[Transaction]:
        """A transaction as scheduler_service: over its own login, else as an administrator who becomes it."""
        if isinstance(self.service, Login) and self.service.name == SERVICE:
            async with self.service.database.open_transaction(kept=False) as transaction:
                yield transaction
        else:
            async with self._open_as(_BECOME_SERVICE) as transaction:
                yield transaction

    @asynccontextmanager
    async def open_as_owner(self) -> AsyncIterator[Transaction]:
        async with self._open_as(_BECOME_OWNER) as transaction:
            yield transaction

    @asynccontextmanager
    async def open_as_cron(self) -> AsyncIterator[Transaction]:
        async with self._open_as(_BECOME_CRON) as transaction:
            yield transaction

    @asynccontextmanager
    async def open_as_administrator(self) -> AsyncIterator[Transaction]:
        async with required(self.administrator).database.open_transaction(kept=False) as transaction:
            yield transaction

    async def tick_status(self) -> TickStatus:
        """What there is to see of the tick; looked at once. Raises TickError, DatabaseUnavailable."""
        return await self.once("the tick", lambda: read_tick_status(required(self.administrator).database))

    async def once(self, what: str, look: Callable[[], Awaitable[T]]) -> T:
        """What the first check that asked for it has seen, or the error that it met.

        **Cancellation:** it is not looked at again. What one check has waited for in vain the next need not,
        and is told so.
        """
        if what not in self._seen:
            self._seen[what] = SchedulerError(
                f"{what} was not to be seen in time; end the transactions that have been open for long"
            )
            try:
                self._seen[what] = await look()
            except SchedulerError as error:
                self._seen[what] = error
        seen = self._seen[what]
        if isinstance(seen, SchedulerError):
            raise seen
        return cast(T, seen)

    @asynccontextmanager
    async def _open_as(self, become: Statement) -> AsyncIterator[Transaction]:
        async with self.open_as_administrator() as transaction:
            await transaction.execute(become)
            yield transaction


def required(login: Login | SchedulerError) -> Login:
    """The login, or the reason against it raised."""
    if isinstance(login, Login):
        return login
    raise login


@asynccontextmanager
async def open_installation(
    settings: Settings, clock: Callable[[], float] = time.time
) -> AsyncIterator[Installation]:
    """Log in with both URLs; one that can't be used is found out here, once, and waited for once.

    **Cancellation:** as `open_database`.
    """
    async with AsyncExitStack() as stack:
        names = ("DATABASE_URL", "SCHEDULER_ADMIN_DATABASE_URL")
        service = await _log_in(stack, names[0], settings.database_url)
        administrator = service
        if settings.admin_database_url is not None:
            administrator = await _log_in(stack, names[1], settings.admin_database_url)
        yield Installation(settings, service, administrator, clock)


async def _log_in(stack: AsyncExitStack, setting: str, url: SecretStr | None) -> Login | SchedulerError:
    if url is None:
        return DatabaseUnavailable(f"{setting} is not set.")
    # As if there were a transaction pooler: to find out whether there is one must not fail by it.
    database = await stack.enter_async_context(
        open_database(url.get_secret_value(), max_connections=2, pooler="transaction", setting=setting)
    )
    try:
        async with database.open_transaction(kept=False) as transaction:
            [row] = await transaction.fetch(_LOOK_AT_LOGIN)
    except SchedulerError as error:
        return error
    return Login(database, row["login"], row["is_superuser"])
