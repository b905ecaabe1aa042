"""One answer that is asked for, and how its tokens reach the event loop."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from medqa.serve.sampling import Sampler


@dataclass(eq=False)
class Request:
    """One answer that is asked for.

    Attributes:
        prompt: Token ids.
        max_new_tokens: Where the answer is cut.
        tuned: The adapter is on.
        sampler: How its tokens are chosen.
        loop: The event loop that `said` belongs to.
        said: Receives each token, the end token included, or the exception that ended it.
        ids: The answer so far.
        over: It has ended, or nobody waits for it any more.
    """

    prompt: list[int]
    max_new_tokens: int
    tuned: bool
    sampler: Sampler
    loop: asyncio.AbstractEventLoop
    said: "asyncio.Queue[int | Exception]"
    ids: list[int] = field(default_factory=list)
    over: bool = False

    @property
    def most(self) -> int:
        """Tokens that it may come to take in the cache."""
        return len(self.prompt) + self.max_new_tokens


def hand_out(said: Sequence[tuple[Request, int | Exception]]) -> None:
    """Gives everybody what is theirs, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Request, int | Exception]]] = {}
    for one, what in said:
        by_loop.setdefault(one.loop, []).append((one, what))
    for loop, theirs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put, theirs)
        except RuntimeError:  # the loop is closed: nobody waits any more
            for one, _ in theirs:
                one.over = True


def _put(said: Sequence[tuple[Request, int | Exception]]) -> None:
    for one, what in said:
        one.said.put_nowait(what)
