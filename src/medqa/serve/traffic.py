"""What is under way: seats at the model, the queue for them, deadlines, and the end of it all."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medqa.serve.refusal import Refusal, unavailable

_LONGEST_WAIT = 60  # seconds in Retry-After; OpenAI's client heeds no more
_LAST_WORDS = 1.0  # seconds to say that an answer was cut off
_MEMORY = 0.2  # weight of the newest answer in the mean duration


class Traffic:
    """Counts what is under way, and says no beyond the limits.

    Args:
        concurrency: Answers computed at a time.
        queue: Requests that wait for a seat; the next is refused.
        timeout: Seconds that a request may take.

    Attributes:
        running: Answers that are being computed.
        waiting: Requests in the queue.
        ready: The model has answered.
        stopping: The server ends: nothing new is taken on.
    """

    def __init__(self, *, concurrency: int, queue: int, timeout: float) -> None:
        self.running = 0
        self.waiting = 0
        self.ready = False
        self.stopping = False
        self._concurrency = concurrency
        self._queue = queue
        self._timeout = timeout
        self._seats = asyncio.Semaphore(concurrency)
        self._clocks: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._seconds = 1.0  # mean duration of an answer, seat to end

    @property
    def under_way(self) -> int:
        """Requests that were taken on and have not ended."""
        return len(self._clocks)

    def require_ready(self) -> None:
        """Raises the Refusal of a server that loads or ends."""
        if self.stopping:
            raise self._stopping()
        if not self.ready:
            raise unavailable("the model is being loaded", code="loading", retry_after=5)

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Takes a request on, from here to its end.

        Raises:
            Refusal: 503 the server loads or ends, 504 the time is over.
        """
        self.require_ready()
        clock = asyncio.timeout(self._timeout)
        self._clocks.add(clock)
        try:
            async with clock:
                yield
        except TimeoutError:
            if not clock.expired():
                raise
            if self.stopping:
                raise self._stopping() from None
            told = (
                f"the answer was not ready after {self._timeout:g} seconds; ask for a shorter one"
            )
            raise Refusal(504, told, code="timeout") from None
        finally:
            self._clocks.discard(clock)
            if not self._clocks:
                self._idle.set()

    @asynccontextmanager
    async def seat(self) -> AsyncIterator[None]:
        """Waits for a seat at the model and holds it; first come, first served.

        Raises:
            Refusal: 503, the queue is full.
        """
        if self._seats.locked() and self.waiting >= self._queue:
            raise unavailable(
                f"{self.running} answers are being computed and {self.waiting} wait",
                code="queue_full",
                retry_after=self._wait(),
            )
        self.waiting += 1
        try:
            await self._seats.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        started = time.monotonic()
        try:
            yield
        finally:
            self.running -= 1
            self._seats.release()
            self._seconds += _MEMORY * (time.monotonic() - started - self._seconds)

    async def drain(self, seconds: float) -> None:
        """Takes nothing on any more; returns when all has ended, after `seconds` at the latest.

        What has not ended by then is told so, and ends.
        """
        self.stopping = True
        if await self._empty_within(seconds):
            return
        for clock in self._clocks:
            if not clock.expired():
                clock.reschedule(asyncio.get_running_loop().time())
        await self._empty_within(_LAST_WORDS)

    async def _empty_within(self, seconds: float) -> bool:
        if not self._clocks:
            return True
        self._idle.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _wait(self) -> int:
        """Seconds until a place in the queue should be free."""
        return min(max(math.ceil(self._seconds / self._concurrency), 1), _LONGEST_WAIT)

    def _stopping(self) -> Refusal:
        return unavailable("the server is shutting down", code="shutting_down", retry_after=5)
