"""The whole of it: a browser at a served process, a real run over a real Postgres, and its end."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import trio

from tests.browser.conftest import Keep
from tests.browser.driving import Browser, Seen, log_in
from tests.browser.test_dashboard import NO_REFRESH, assert_quiet, wait_for_headline
from tests.end_to_end.conftest import Service, open_services, open_trigger_engine, seed

TOKEN = "operator-token-of-32-characters!"
MENTORS = 200


async def test_a_real_run_is_watched_to_its_bar_without_a_reload(
    browser: Browser, keep: Keep, database_url: str, tmp_path: Path
) -> None:
    """Beside the first run, which nobody can say the length of before its mentors are counted."""
    await seed(database_url, MENTORS)

    def watch(page: Any, service: Service, tick: Any) -> None:
        seen = Seen()
        seen.watch(page)
        page.add_init_script(NO_REFRESH)
        log_in(page, service.url, TOKEN)
        wait_for_headline(page, "Nothing has run yet.")
        tick()
        bar = page.get_by_role("progressbar")
        bar.wait_for()
        assert bar.evaluate("bar => bar.max") == MENTORS
        before = bar.evaluate("bar => bar.value")
        page.wait_for_selector(f"#live-mentors:not(:has-text('{before} of'))")
        assert before < bar.evaluate("bar => bar.value") <= MENTORS
        page.locator("#timeline .bar.completed").wait_for()
        wait_for_headline(page, "Everybody was reached")
        bar.wait_for(state="hidden")
        keep(page, "real-run")
        assert_quiet(seen, service.url)

    with open_services(tmp_path) as start:
        async with open_trigger_engine(lambda mentor_id: 0.15) as engine, trio.open_nursery() as nursery:
            service = await start(
                DATABASE_URL=database_url,
                SCHEDULER_TRIGGER_ENGINE=engine.url,
                SCHEDULER_OPERATOR_TOKEN=TOKEN,
            )

            token = trio.lowlevel.current_trio_token()

            def tick() -> None:
                trio.from_thread.run_sync(nursery.start_soon, service.tick, trio_token=token)

            await trio.to_thread.run_sync(browser.on_page, lambda page: watch(page, service, tick))


async def test_a_page_that_is_open_says_that_its_service_shuts_down_and_lets_it(
    browser: Browser, database_url: str, tmp_path: Path
) -> None:
    def watch(page: Any, service: Service) -> None:
        with page.expect_response(
            "**/dashboard/events"
        ):  # else the service may be gone before it is listened to
            log_in(page, service.url, TOKEN)
        service.send(signal.SIGTERM)
        page.locator("#connection", has_text="The service is shutting down").wait_for()

    with open_services(tmp_path) as start:
        service = await start(DATABASE_URL=database_url, SCHEDULER_OPERATOR_TOKEN=TOKEN)
        await trio.to_thread.run_sync(browser.on_page, lambda page: watch(page, service))
        assert await service.exit_code() == 0
