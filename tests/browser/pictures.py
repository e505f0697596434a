"""This file makes the README's pictures: `python -m tests.browser.pictures`, into docs/pictures.

The dashboard's are of the page itself over a ledger that is made up (tests/web/states.py); the demo's is what
the demo printed a moment ago, drawn by rich.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from tests.browser.driving import Browser, log_in, make_site, open_browser
from tests.end_to_end.conftest import ENVIRONMENT, arguments_of
from tests.web import states

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"

# In columns; the demo's longest line but for its commands.
WIDTH = 100

LAST_LINE = "Ctrl-C ends it"


def picture_dashboard(browser: Browser, folder: Path) -> None:
    looks: dict[str, dict[str, Any]] = {
        "dashboard-light": {"viewport": {"width": 1000, "height": 1150}},
        "dashboard-dark": {"viewport": {"width": 1000, "height": 1150}, "color_scheme": "dark"},
        "dashboard-phone": {"viewport": {"width": 360, "height": 1150}},
    }
    for name, how in looks.items():
        with make_site() as site:
            site.change(states.live)

            def take(page: Any, name: str = name, url: str = site.url) -> None:
                log_in(page, url)
                page.locator("#timeline").wait_for()
                if name == "dashboard-light":
                    page.locator("#timeline .bar.partial").first.hover()
                page.screenshot(path=folder / f"{name}.png", animations="disabled")

            browser.on_page(take, **how)


def run_demo() -> str:
    """What `scenario-scheduler demo` prints, to its last line."""
    lines = []
    with subprocess.Popen(
        arguments_of("demo"),
        env=ENVIRONMENT | {"COLUMNS": str(WIDTH), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            lines.append(line)
            if line.startswith(LAST_LINE):
                demo.send_signal(signal.SIGINT)
    return "".join(lines)


def picture_demo(browser: Browser, folder: Path) -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ scenario-scheduler demo", style="bold"))
    console.print(run_demo().rstrip(), markup=False)
    svg = console.export_svg(title="", theme=DIMMED_MONOKAI, font_aspect_ratio=0.6)
    # rich asks another host for its font; here the system's own is as good.
    svg = svg.replace("Fira Code", "DejaVu Sans Mono")

    def take(page: Any) -> None:
        page.route("**/*", lambda route: route.abort())
        page.set_content(f'<body style="margin:0">{svg}</body>')
        page.locator("svg").first.screenshot(path=folder / "demo.png", omit_background=True)

    browser.on_page(take, viewport={"width": 1000, "height": 900})


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with open_browser() as browser:
        picture_dashboard(browser, folder)
        picture_demo(browser, folder)
    for picture in sorted(folder.glob("*.png")):
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
