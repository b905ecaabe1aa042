"""Gradio's stream of events, ended by both sides, so that no click is lost between them."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

_CLOSE = b'data: {"msg":"close_stream"'

_PATIENCE = 5.0
"""Seconds that a page may take to close its end; a proxy may never tell us that it did.

Where the end takes longer to reach the page, a click may be lost as before.
"""

_TICK = 0.01


class EndedByBothSides:
    """ASGI middleware: while a page has yet to close a stream that has ended, no click is answered.

    Upstream: ``gradio/routes.py``, ``queue_data_helper``; in the page ``open_stream``, ``submit``.

    All events of a page share one stream. With the last of them the server ends it
    (``close_stream``), and for the next event the page opens another, if it has none open. But a
    click may reach the server after that end, and its answer the page before it: by two
    connections, or two ways through a proxy. Then the page opens none, closes the old one, and
    waits for ever, while the training that it started runs unseen. With up to 0.3 s between page
    and server that was two trainings of seven started as soon as the page was there.

    Here a stream stays open after ``close_stream`` until the page has closed it, and till then the
    answers to clicks, of whatever page, are held back.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self._ending: set[object] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serves one request; see the class."""
        path = scope.get("path", "")
        if path.endswith("/queue/data"):
            await self._stream(scope, receive, send)
        elif path.endswith("/queue/join"):
            await self._click(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _stream(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        this = object()

        async def sent(message: MutableMapping[str, Any]) -> None:
            if message.get("body", b"").startswith(_CLOSE):
                self._ending.add(this)
            elif this in self._ending:
                await asyncio.sleep(_PATIENCE)  # Starlette cancels it when the page closes its end
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            self._ending.discard(this)

    async def _click(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def sent(message: MutableMapping[str, Any]) -> None:
            while self._ending:
                await asyncio.sleep(_TICK)
            await send(message)

        await self.app(scope, receive, sent)
