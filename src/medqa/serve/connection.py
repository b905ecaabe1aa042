"""uvicorn's connection, without endless patience for clients that do not speak or do not listen.

uvicorn (``uvicorn/protocols/http/h11_impl.py``) waits for the end of a request's head for ever, and
for a client that does not read. Each such connection costs a file descriptor and up to 64 KiB.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
"""How long a request's head may take, from the connection or from its first byte."""

UNREAD_SECONDS = 30.0
"""How long a client may leave unread what does not fit the buffers any more."""


class Connection(H11Protocol):
    """A connection that is cut when one of the two times is over."""

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first request's head."""
        super().connection_made(transport)
        self._head = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Stops the time for a head that is there; starts it for one that has begun."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            _stop(self._head)
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        """Starts the time for a client that does not read."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stops it."""
        super().resume_writing()
        _stop(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops both."""
        super().connection_lost(exc)
        _stop(self._head)
        _stop(self._unread)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
