"""This file is what `doctor` shows: a line per check, and under one that fails, its mend."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
import trio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine import Finding, examine, load_settings

# Words beside the marks: colours and marks get lost in logs, and are not there for everybody.
_HOLDS, _BROKEN = ("✓ ok", "green"), ("✗ broken", "red")


def run_doctor(*, as_json: bool) -> bool:
    """Examine the installation and show what was found. Returns whether all holds.

    Raises ConfigurationError. What only `serve` must have, such as a secret, is for the findings to miss.
    """
    findings = trio.run(examine, load_settings("administrator_url"))
    all_hold = all(finding.ok for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": all_hold, "checks": [finding.as_json() for finding in findings]}))
    else:
        console = Console()
        console.print(findings_table(findings, console.encoding))
        console.print(_conclusion(findings), highlight=False)
    return all_hold


def findings_table(findings: Sequence[Finding], encoding: str) -> Table:
    """Three columns that fit in 80; `encoding` is the console's, which may lack the marks."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        word, colour = _HOLDS if finding.ok else _BROKEN
        table.add_row(
            Text(_writable(word, encoding), style=colour), finding.check, Text(_said(finding, encoding))
        )
    return table


def _said(finding: Finding, encoding: str) -> str:
    mend = "" if finding.mend is None else f"\n{_writable('→ mend:', encoding)} {finding.mend}"
    return f"{finding.found}{mend}".encode(encoding, "replace").decode(encoding)


def _writable(marked: str, encoding: str) -> str:
    """With its mark, if the encoding has it."""
    try:
        marked.encode(encoding)
    except UnicodeEncodeError:
        return marked.partition(" ")[2]
    return marked


def _conclusion(findings: Sequence[Finding]) -> str:
    failed = sum(not finding.ok for finding in findings)
    if failed:
        return f"{failed} of {len(findings)} checks failed."
    return f"All {len(findings)} checks hold."
