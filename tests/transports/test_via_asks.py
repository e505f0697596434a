"""What only the transport over asks promises: to say how to get asks."""

from __future__ import annotations

import sys

import pytest

from engine.errors import ConfigurationError
from engine.trigger.via_asks import AsksTransport


def test_asks_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asks", None)
    with pytest.raises(ConfigurationError, match=r"pip install --no-deps asks==3\.0\.0 async_generator"):
        AsksTransport("http://127.0.0.1:1/")
