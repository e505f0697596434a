"""A real browser for the dashboard: Debian's chromium, headless. Skips where it or playwright is not.

Each test keeps what it looked at as a picture: in the folder that SCHEDULER_TEST_PICTURES names, else in
pytest's own (`pytest --basetemp=…`), under `pictures`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driving import CHROMIUM, Browser, Site, make_site, open_browser

Keep = Callable[[Any, str], None]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("chromium is not installed: apt-get install chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install playwright")
    with open_browser() as browser:
        yield browser


@pytest.fixture
def site(browser: Browser) -> Iterator[Site]:
    """The application over a fake scheduler; `browser` first, so that it is skipped without one."""
    with make_site() as site:
        yield site


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("SCHEDULER_TEST_PICTURES")
    folder = Path(named) if named else tmp_path_factory.getbasetemp() / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def keep(pictures: Path) -> Keep:
    """Keep the page as a picture of that name, whole."""

    def keep(page: Any, name: str) -> None:
        page.screenshot(path=pictures / f"{name}.png", full_page=True, animations="disabled")

    return keep
