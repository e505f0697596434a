"""This file is GET /dashboard: the page that an operator looks at, and the part of it that changes."""

from __future__ import annotations

from dataclasses import replace

import structlog
import trio
from markupsafe import Markup, escape
from quart import Blueprint, Response, redirect, render_template

from engine import Scheduler, SchedulerError, Settings
from web.answers import DATABASE_RETRY_AFTER
from web.auth import Operator, has_bearer, unauthorized
from web.cached import Cached
from web.charts.shards import AGAIN, AGAIN_NAME, SHARD_KINDS
from web.charts.timeline import KINDS
from web.csrf import FIELD, FormTokens
from web.login import ENTRANCE, HOME
from web.openapi import for_browsers
from web.pages import protect_page
from web.view import RUNS_SHOWN, Known, View, make_view
from web.watch import Sight, Watch

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds that what was read is good for, however many pages are open.
OVERVIEW_LASTS = 1.0

# Seconds that a page waits for the database, whatever it asks: a person waits no longer. More than the
# mentors may take to be counted (web/watch.py), so that a run of this process is shown while Postgres hangs.
DATABASE_PATIENCE = 2.5

NO_ANSWER = f"Postgres does not answer within {DATABASE_PATIENCE:g} s; see what it is busy with."


class Memory:
    """What was last read of the ledger, kept for the time in which it can't be read."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._known = Known()
        self._read_at = 0.0
        self._overviews = Cached(self._read, OVERVIEW_LASTS)
        self._sight: tuple[str, str] | None = None

    async def recall(self, sight: Sight) -> Known:
        """As it is at least since what `sight` saw: a run's beginning is not shown for its end.

        **Cancellation:** leaves what was known.
        """
        if sight.fault:  # the same question would wait as long, for the same answer
            return self.without(sight.fault)
        if self._sight != (sight.state, sight.latest):
            self._sight = sight.state, sight.latest
            self._overviews = Cached(self._read, OVERVIEW_LASTS)
        return await self._overviews.answer()

    def without(self, fault: str) -> Known:
        """What was known, while `fault` keeps it from being read."""
        log.warning("dashboard_without_ledger", reason=fault)
        return replace(self._known, age=trio.current_time() - self._read_at, fault=fault)

    async def _read(self) -> Known:
        try:
            overview = await self._scheduler.read_overview(limit=RUNS_SHOWN)
        except SchedulerError as error:
            return self.without(str(error))
        self._known, self._read_at = Known(overview), trio.current_time()
        return self._known


def dashboard_blueprint(
    scheduler: Scheduler, settings: Settings, operator: Operator, forms: FormTokens, watch: Watch
) -> Blueprint:
    blueprint = Blueprint("dashboard", __name__, template_folder="templates")
    blueprint.after_request(protect_page)
    blueprint.add_app_template_filter(with_code, "with_code")
    memory = Memory(scheduler)

    async def view() -> View:
        # The look comes first: a run that ends in between is then in the charts, and shown as live no more
        # than until the next event.
        sight, known = Sight("away"), None
        with trio.move_on_after(DATABASE_PATIENCE):
            sight = await watch.look()
            known = await memory.recall(sight)
        return make_view(known or memory.without(NO_ANSWER), sight, settings)

    @blueprint.get(HOME)
    @for_browsers
    async def get_dashboard() -> Response:
        if not await operator.is_asking():
            return unauthorized("Bearer") if has_bearer() else _to_entrance()
        nonce, form_token = forms.issue("logout")
        shown = await view()
        page = await _render("dashboard.html", shown, field=FIELD, form_token=form_token)
        if shown.is_old:
            page.status_code = 503
            page.headers["Retry-After"] = f"{DATABASE_RETRY_AFTER:.0f}"
        forms.remember(page, nonce)
        return page

    @blueprint.get(f"{HOME}/overview")
    @for_browsers
    async def get_overview() -> Response:
        """The same without what surrounds it, for the page that is open already.

        Always 200: to the page that asks, a ledger that can't be read is something to show.
        """
        if not await operator.is_asking():
            return unauthorized("Bearer")
        return await _render("_overview.html", await view())

    return blueprint


async def _render(template: str, view: View, **more: str) -> Response:
    return Response(
        await render_template(
            template, view=view, kinds=KINDS, shard_kinds=SHARD_KINDS | {AGAIN: AGAIN_NAME}, **more
        ),
        content_type="text/html; charset=utf-8",
    )


def _to_entrance() -> Response:
    response: Response = redirect(ENTRANCE, 303)  # type: ignore[assignment]
    return response


def with_code(text: str) -> Markup:
    """What stands between backticks, as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup().join(
        Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts)
    )
