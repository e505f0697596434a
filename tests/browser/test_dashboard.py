"""The dashboard in a browser: every state, light and dark and on a phone, and what a hand can do with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser.conftest import Keep
from tests.browser.driving import Browser, Seen, Site, log_in
from tests.web import states
from tests.web.conftest import FakeScheduler

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": PHONE,
    "phone-dark": PHONE | {"color_scheme": "dark"},
}

# What axe can't know: the bars are images in a group, each with its counts as its name.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

# Elements that a Tab can come to, in the order of the page and as they lie on the screen.
TAB_STOPS = """() => [...document.querySelectorAll('a[href], button, input, summary, [tabindex]')]
  .filter((each) => each.tabIndex >= 0 && each.offsetParent !== null || each.matches('g[tabindex="0"]'))
  .map((each) => ({tabindex: each.tabIndex, top: each.getBoundingClientRect().top}))"""


# The page also asks every quarter of a minute; what is tested is that it does when something happens.
NO_REFRESH = (
    "const every = setInterval; setInterval = (act, pause) => (pause < 10_000 ? every(act, pause) : 0);"
)


def assert_accessible(page: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # Its script is put in by playwright, not by the page, so the page's policy does not keep it out.
    found = Axe().run(page, options=RULES).response["violations"]
    assert not found, [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]} ({len(each['nodes'])} of them)"
        for each in found
    ]


def wait_for_headline(page: Any, text: str) -> None:
    page.locator("#headline-text", has_text=text).wait_for()


def assert_quiet(seen: Seen, url: str) -> None:
    """Nothing on the console, and nothing asked of anybody else."""
    assert seen.console == []
    assert seen.hosts == {urlsplit(url).netloc}


# Each state in both colours and both widths, but not in all four: a visit takes seconds.
VISITS = [(states.good, look) for look in LOOKS] + [
    (state, look)
    for state in states.STATES
    if state not in (states.good, states.away)
    for look in ("light", "phone-dark")
]


@pytest.mark.parametrize(("state", "look"), VISITS, ids=lambda part: getattr(part, "__name__", part))
def test_every_state_is_readable_by_anybody_and_asks_nobody_else(
    state: Callable[[FakeScheduler], None], look: str, browser: Browser, site: Site, keep: Keep
) -> None:
    site.change(state)

    def visit(page: Any) -> None:
        seen = Seen()
        seen.watch(page)
        log_in(page, site.url)
        page.locator("#headline-text").wait_for()
        keep(page, f"{state.__name__}-{look}")
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
        assert_accessible(page)
        assert_quiet(seen, site.url)

    browser.on_page(visit, **LOOKS[look])


@pytest.mark.parametrize("look", ["light", "phone-dark"])
def test_a_database_that_goes_away_is_shown_without_a_reload_and_so_is_its_return(
    look: str, browser: Browser, site: Site, keep: Keep
) -> None:
    site.change(states.good)

    def visit(page: Any) -> None:
        seen = Seen()
        seen.watch(page)
        page.add_init_script(NO_REFRESH)
        log_in(page, site.url)
        site.change(states.away)
        wait_for_headline(page, "The ledger can't be read")
        assert page.locator("#timeline .bar").count() == 60
        keep(page, f"away-{look}")
        assert_accessible(page)
        site.change(lambda scheduler: setattr(scheduler, "error", None))
        wait_for_headline(page, "Everybody was reached")
        assert_quiet(seen, site.url)

    browser.on_page(visit, **LOOKS[look])


@pytest.mark.parametrize("look", ["light", "phone-dark"])
def test_the_login_form_is_readable_by_anybody_and_says_what_was_wrong(
    look: str, browser: Browser, site: Site, keep: Keep
) -> None:
    def visit(page: Any) -> None:
        page.goto(f"{site.url}/dashboard")
        assert page.url == f"{site.url}/login"
        field = page.get_by_label("Operator token")
        assert field.evaluate("field => field === document.activeElement")
        field.fill("wrong")
        field.press("Enter")
        page.get_by_role("alert").filter(has_text="That is not the operator token.").wait_for()
        keep(page, f"login-{look}")
        assert_accessible(page)

    browser.on_page(visit, **LOOKS[look])


def test_a_run_is_watched_from_its_beginning_to_its_bar_without_a_reload(
    browser: Browser, site: Site, keep: Keep
) -> None:
    site.change(states.good)

    def visit(page: Any) -> None:
        seen = Seen()
        seen.watch(page)
        page.add_init_script(NO_REFRESH)
        log_in(page, site.url)
        page.evaluate("window.wasNotReloaded = true")
        bar, live = page.get_by_role("progressbar"), page.get_by_text("A run is under way")
        assert live.is_hidden()

        site.change(states.live)
        live.wait_for()
        page.get_by_text("5,412 of about 12,297 mentors").wait_for()
        assert bar.evaluate("bar => [bar.value, bar.max]") == [5412, 12297]
        page.locator("#said", has_text="A run has begun.").wait_for(state="attached")

        def go_on(scheduler: FakeScheduler) -> None:
            assert scheduler.live_run is not None
            scheduler.live_run = replace(scheduler.live_run, elapsed=6.0, evaluated=9_000)

        site.change(go_on)
        page.get_by_text("9,022 of about 12,297 mentors").wait_for()
        keep(page, "progress")

        def end(scheduler: FakeScheduler) -> None:
            scheduler.live_run = None
            scheduler.records[0] = states.record(60, states.NOW, seconds=8.0, dispatched={"expiry": 77})
            scheduler.freshness = states.fresh(8.0)

        site.change(end)
        page.locator(f"#run-{states.run_id(60)}.completed").wait_for()
        live.wait_for(state="hidden")
        wait_for_headline(page, "Everybody was reached 8\u00a0s ago")
        assert page.evaluate("window.wasNotReloaded")
        assert_quiet(seen, site.url)

    browser.on_page(visit)


def test_a_bar_shows_its_counts_to_who_points_at_it(browser: Browser, site: Site, keep: Keep) -> None:
    site.change(states.good)

    def visit(page: Any) -> None:
        log_in(page, site.url)
        tip = page.locator("#tip")
        assert tip.is_hidden()
        partial = page.locator("#timeline .bar.partial").first
        partial.hover()
        tip.wait_for()
        text = tip.inner_text().replace("\u00a0", " ")
        assert "Partial: the soft threshold came first, 25 s" in text
        assert "1,100 unprocessed" in text
        keep(page, "hovered")
        page.locator(".column").first.hover()
        tip.filter(has_text="dispatched").wait_for()
        page.get_by_role("heading", name="Scenario scheduler").hover()
        tip.wait_for(state="hidden")

    browser.on_page(visit)


def test_a_bar_shows_its_counts_on_a_phone_when_it_is_touched(
    browser: Browser, site: Site, keep: Keep
) -> None:
    site.change(states.good)

    def visit(page: Any) -> None:
        log_in(page, site.url)
        page.locator("#timeline .bar.failed .hit").tap()
        page.locator("#tip", has_text="Failed").wait_for()
        keep(page, "touched")
        box = page.locator("#tip").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360

    browser.on_page(visit, **PHONE)


def test_the_counts_are_seen_when_the_focus_goes_to_a_bar_that_was_out_of_sight(
    browser: Browser, site: Site
) -> None:
    site.change(states.good)

    def visit(page: Any) -> None:
        log_in(page, site.url)
        page.get_by_role("button", name="Log out").focus()
        page.keyboard.press("Tab")
        page.locator("#timeline").evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        assert page.evaluate("scrollY") > 0
        tip = page.locator("#tip").bounding_box()
        assert tip is not None
        assert 0 <= tip["y"] <= page.viewport_size["height"] - tip["height"]

    browser.on_page(visit, viewport={"width": 360, "height": 400})


def test_the_bars_are_one_stop_of_the_keyboard_and_the_arrows_go_through_them(
    browser: Browser, site: Site, keep: Keep
) -> None:
    site.change(states.good)

    def visit(page: Any) -> None:
        log_in(page, site.url)
        bars, tip = page.locator("#timeline .bar"), page.locator("#tip")
        focused = "document.activeElement.id"
        stops = []
        for _ in range(12):
            page.keyboard.press("Tab")
            stops.append(page.evaluate(f"{focused} || document.activeElement.textContent.trim()"))
            if stops[-1] == "table":
                break
        last = f"run-{states.history()[0].run_id}"
        assert stops[:3] == ["Skip to the charts", "Log out", last]
        page.locator("#timeline .bar").last.focus()
        tip.filter(has_text="Completed").wait_for()
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(focused) == bars.nth(58).get_attribute("id")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(focused) == bars.nth(0).get_attribute("id")
        keep(page, "focused")
        page.keyboard.press("End")
        assert page.evaluate(focused) == bars.nth(59).get_attribute("id")
        page.keyboard.press("Escape")
        tip.wait_for(state="hidden")

    browser.on_page(visit)


def test_shards_change_under_the_hand_that_points_at_them(browser: Browser, site: Site, keep: Keep) -> None:
    """Also on a page that was open before the run began, which has then as many cells as there are shards."""
    site.change(states.good)

    def visit(page: Any) -> None:
        seen = Seen()
        seen.watch(page)
        page.add_init_script(NO_REFRESH)
        log_in(page, site.url)
        cells, tip, focused = (
            page.locator("#live .cell[role=img]"),
            page.locator("#tip"),
            "document.activeElement",
        )
        assert cells.count() == 0
        site.change(states.sharded)
        page.get_by_text("13 of 32 shards done, 3 under way, 2 lost").wait_for()
        assert cells.count() == 32
        assert page.locator("#live-shards .legend li:visible").all_inner_texts() == [
            "done", "done with errors", "under way", "lost", "waiting", "delivered again",
        ]  # fmt: skip

        page.get_by_role("button", name="Log out").focus()
        page.keyboard.press("Tab")
        for _ in range(16):
            page.keyboard.press("ArrowRight")
        assert page.evaluate(f"{focused} === document.querySelectorAll('#live .strip .cell')[16]")
        tip.filter(has_text="Shard 16: under way").wait_for()
        keep(page, "shard")

        def go_on(scheduler: FakeScheduler) -> None:
            scheduler.shards[scheduler.records[0].run_id] = states.shards_of(
                ["finished"] * 17 + ["waiting"] * 15
            )

        site.change(go_on)
        tip.filter(has_text="Shard 16: done").wait_for()
        assert page.evaluate(f"{focused}.classList.contains('completed')")
        assert "Shard 16: done" in page.evaluate(f"{focused}.ariaLabel")
        assert page.locator('#live .strip .cell[tabindex="0"]').count() == 1
        assert page.locator("#live .workers li").count() == 3
        assert_accessible(page)
        assert_quiet(seen, site.url)

    browser.on_page(visit, **PHONE)


def test_every_bar_is_named_by_when_and_what(browser: Browser, site: Site) -> None:
    site.change(states.good)

    def visit(page: Any) -> None:
        log_in(page, site.url)
        names = page.locator("#timeline .bar").evaluate_all("bars => bars.map((bar) => bar.ariaLabel)")
        assert len(set(names)) == 60
        assert all("evaluated" in name and "dispatched" in name and ":" in name for name in names)

    browser.on_page(visit)


@pytest.mark.parametrize("look", ["light", "phone"])
def test_the_keyboard_goes_down_the_page_as_the_eye_does(look: str, browser: Browser, site: Site) -> None:
    site.change(states.good)

    def visit(page: Any) -> None:
        log_in(page, site.url)
        page.locator("summary").click()
        stops = page.evaluate(TAB_STOPS)
        assert all(stop["tabindex"] == 0 for stop in stops)
        visible = [stop["top"] for stop in stops[1:]]  # the first one shows itself when it has the focus
        assert visible == sorted(visible)
        assert len(visible) >= 4

    browser.on_page(visit, **LOOKS[look])


def test_what_somebody_reads_stays_where_it_is_when_the_charts_are_renewed(
    browser: Browser, site: Site
) -> None:
    site.change(states.good)

    def visit(page: Any) -> None:
        page.add_init_script(NO_REFRESH)
        log_in(page, site.url)
        page.locator("summary").click()
        page.locator(f"#run-{states.run_id(30)}").focus()
        site.change(states.failing)
        wait_for_headline(page, "were not evaluated")
        assert page.locator("details").get_attribute("open") is not None
        assert page.evaluate("document.activeElement.id") == f"run-{states.run_id(30)}"
        assert page.locator("#tip").is_visible()
        assert page.locator('#timeline .bar[tabindex="0"]').count() == 1
        assert page.locator("#timeline .bar title").count() == 0

    browser.on_page(visit)


def test_a_page_that_is_out_of_sight_holds_no_stream_and_catches_up_when_it_is_seen(
    browser: Browser, site: Site
) -> None:
    site.change(states.good)

    def set_hidden(page: Any, hidden: bool) -> None:
        page.evaluate(
            """hidden => {
              Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )

    def visit(page: Any) -> None:
        page.add_init_script(NO_REFRESH)
        log_in(page, site.url)
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/dashboard/events")):
            set_hidden(page, True)
        site.change(states.live)
        with page.expect_request("**/dashboard/events"):
            set_hidden(page, False)
        page.get_by_text("A run is under way", exact=True).wait_for()

    browser.on_page(visit)


def test_without_javascript_the_page_is_the_same_and_stands_still(
    browser: Browser, site: Site, keep: Keep
) -> None:
    site.change(states.live)

    def visit(page: Any) -> None:
        log_in(page, site.url)
        assert page.get_by_text("5,412 of about 12,297 mentors").is_visible()
        assert page.locator("#timeline .bar title").count() == 60
        page.get_by_text("The same as a table").click()
        assert page.get_by_role("row").count() == 61
        keep(page, "without-javascript")
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Operator token").wait_for()

    browser.on_page(visit, java_script_enabled=False)


@pytest.mark.parametrize("how", ["no answer", "no page"])
def test_a_refresh_that_failed_is_said_until_one_succeeds(how: str, browser: Browser, site: Site) -> None:
    site.change(states.good)

    def fail(route: Any) -> None:
        if how == "no answer":
            route.abort()
        else:
            route.fulfill(status=503, content_type="application/json", body="{}")

    def visit(page: Any) -> None:
        page.add_init_script(NO_REFRESH)
        log_in(page, site.url)
        page.route("**/dashboard/overview", fail)
        site.change(states.live)  # which has the page ask for its charts
        page.locator("#connection", has_text=re.compile(r"^Not refreshed since \d\d:\d\d:\d\d; ")).wait_for()
        page.unroute("**/dashboard/overview")
        site.change(states.away)
        site.change(lambda scheduler: setattr(scheduler, "live_run", None))
        wait_for_headline(page, "The ledger can't be read")
        page.locator("#connection", has_text=re.compile("^$")).wait_for(state="attached")

    browser.on_page(visit)


def test_a_session_that_is_over_is_said_on_the_open_page(browser: Browser, site: Site) -> None:
    site.change(states.good)

    def visit(page: Any) -> None:
        log_in(page, site.url)
        page.context.clear_cookies()
        site.change(states.failing)  # which has the page ask for its charts
        page.get_by_role("link", name="Log in again").click()
        page.get_by_label("Operator token").wait_for()

    browser.on_page(visit)


def test_the_colours_of_dark_mode_are_other_ones(browser: Browser, site: Site) -> None:
    site.change(states.good)

    def ground(page: Any) -> str:
        log_in(page, site.url)
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert browser.on_page(ground, color_scheme="light") != browser.on_page(ground, color_scheme="dark")
