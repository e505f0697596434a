"""This file keeps an answer's end from being cut by the disconnect that it causes itself.

When the last part of an answer is sent, Hypercorn first tells the application that the connection is done,
and then closes it, or starts its idle time-out. Quart-Trio (0.12) cancels the whole request when it is told
so, the sending task included: connections stayed open for ever, also after `Connection: close`.
"""

from __future__ import annotations

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent
from quart_trio.asgi import TrioASGIHTTPConnection


class HTTPConnection(TrioASGIHTTPConnection):
    """Quart-Trio's, with the sending of an answer's last part shielded. Hypercorn bounds that itself."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def send_whole(event: ASGISendEvent) -> None:
            is_last = event["type"] == "http.response.body" and not event["more_body"]
            with trio.CancelScope(shield=is_last):
                await send(event)

        await super().__call__(receive, send_whole)
