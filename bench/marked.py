"""This file puts what a script makes into a text that people write: between two markers, each on its line."""

from __future__ import annotations

import re


def replace_between(begin: str, end: str, content: str, text: str) -> str:
    """The text, with nothing but `content` between the markers. Raises ValueError if there are none."""
    part = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not part.search(text):
        raise ValueError(f"There is no {begin} … {end} in the text; put both back.")
    return part.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", text)
