"""The thread on which answers are generated: who sits in the batch, step by step."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medqa.serve.request import Request, hand_out
from medqa.serve.sampling import choose, processors
from medqa.serve.seats import Seats, capacity
from medqa.serve.sides import Sides

if TYPE_CHECKING:
    import torch

PATIENCE = 4
"""Steps between two fillings of free seats: reading a prompt costs about as much as a step."""

READ_AT_ONCE = 4096
"""Tokens of prompts, padding included, that are read together; their memory is the forward's."""

_CLOSED = "the server is shutting down"

_log = logging.getLogger(__name__)


class Scheduler:
    """Generates on a thread of its own, which a failing forward does not end.

    Args:
        sides: The loaded model.
        seats: Answers in the batch at a time.

    Attributes:
        stops: Ids that end an answer.
        reach: Most tokens of a prompt and its answer.
    """

    def __init__(self, sides: Sides, *, seats: int) -> None:
        self._sides, self._most = sides, seats
        end = sides.model.generation_config.eos_token_id
        self.stops = frozenset([end] if isinstance(end, int) else end)
        self._budget = capacity(sides.model)
        self.reach = min(sides.model.config.max_position_embeddings, self._budget)
        self._processors = processors(sides.model.generation_config)
        self._waiting: deque[Request] = deque()
        self._reading: list[Request] = []  # on their way from there to a seat
        self._seated: list[Request] = []  # the request in each row of the batch
        self._batch: Seats | None = None
        self._since_filling = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="medqa-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends every request with an exception, then the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def running(self) -> int:
        """Requests that have not ended."""
        with self._changed:
            taken = [*self._reading, *self._seated]
            return len(self._waiting) + sum(not one.over for one in taken)

    def submit(self, request: Request) -> None:
        """Takes a request on; its tokens come through ``request.said``."""
        with self._changed:
            if self._closing:
                request.over = True
                request.said.put_nowait(RuntimeError(_CLOSED))
                return
            self._waiting.append(request)
            self._changed.notify()

    def withdraw(self, request: Request) -> None:
        """Forgets a request; its seat is free after the step under way."""
        with self._changed:
            request.over = True
            if request in self._waiting:
                self._waiting.remove(request)

    def _run(self) -> None:
        import torch

        with torch.inference_mode():
            while self._wait():
                failed = self._turn_failed()
                if failed:
                    self._empty(failed)
                    torch.cuda.empty_cache()
        with self._changed:
            self._reading += self._waiting
            self._waiting.clear()
        self._empty(_CLOSED)

    def _empty(self, problem: str) -> None:
        """Ends everybody who has a seat or is about to."""
        self._end([*self._reading, *self._seated], problem)
        with self._changed:
            self._reading, self._seated, self._batch = [], [], None

    def _turn_failed(self) -> str | None:
        """Takes a turn; returns what went wrong, holding none of the failed forward's memory."""
        try:
            self._turn()
        except Exception as error:
            return _cause(error, len(self._reading) + len(self._seated))
        return None

    def _wait(self) -> bool:
        """Sleeps until there is something to do; false when it is time to end."""
        with self._changed:
            while not (self._waiting or self._seated or self._closing):
                self._changed.wait()
            return not self._closing

    def _turn(self) -> None:
        """Seats who waits, or says the next token of everybody seated."""
        going = [row for row, one in enumerate(self._seated) if not one.over]
        if new := self._next(going):
            self._fill(going, new)
        elif len(going) * 4 <= len(self._seated) * 3:  # too many empty seats cost time
            self._reseat([(self._batch, going)], [])
        else:
            self._step()

    def _next(self, going: list[int]) -> list[Request]:
        """Takes from the queue, in its order, who fits in now."""
        if going and self._since_filling < PATIENCE:
            return []
        new: list[Request] = []
        with self._changed:
            seated = [self._seated[row] for row in going]
            while self._waiting and len(seated) < self._most:
                some = [*seated, self._waiting[0]]
                if len(some) * max(one.most for one in some) > self._budget and seated:
                    break
                read = [*new, self._waiting[0]]
                if len(read) * max(len(one.prompt) for one in read) > READ_AT_ONCE and new:
                    break
                seated.append(self._waiting.popleft())
                new.append(seated[-1])
            self._reading = new
        return new

    def _fill(self, going: list[int], new: list[Request]) -> None:
        """Reads the prompts of `new` and gives them seats; a failure is theirs alone."""
        self._since_filling = 0
        fresh = self._read(new)
        parts = [(seats, list(range(len(seats)))) for _, seats in fresh]
        self._reseat([(self._batch, going), *parts], [one for some, _ in fresh for one in some])

    def _read(self, new: list[Request]) -> list[tuple[list[Request], Seats]]:
        try:
            self._sides.select([one.tuned for one in new])
            seats, logits = Seats.read(self._sides.model, [one.prompt for one in new])
            seats.last = self._chosen(new, logits)
        except Exception as error:
            failed = _cause(error, len(new))
        else:
            self._say(new, seats.last)
            return [(new, seats)]
        if len(new) > 1:  # one of them may be the cause
            return [found for one in new for found in self._read([one])]
        self._end(new, failed)
        return []

    def _reseat(self, parts: list[tuple[Seats | None, list[int]]], new: list[Request]) -> None:
        """Makes one batch of the rows that go on and those that come."""
        going = parts[0][1]
        self._batch = Seats.joined([(seats, rows) for seats, rows in parts if seats])
        with self._changed:
            self._seated = [self._seated[row] for row in going] + new
            self._reading = []

    def _step(self) -> None:
        assert self._batch
        self._since_filling += 1
        self._sides.select([one.tuned for one in self._seated])
        self._batch.last = self._chosen(self._seated, self._batch.step(self._sides.model))
        self._say(self._seated, self._batch.last)

    def _chosen(self, requests: Sequence[Request], logits: "torch.Tensor") -> "torch.Tensor":
        import torch

        if self._processors:
            rows = []
            for row, one in enumerate(requests):
                ids = torch.tensor([one.prompt + one.ids], device=logits.device)
                rows.append(self._processors(ids, logits[row : row + 1]))
            logits = torch.cat(rows)
        return choose(logits, [one.sampler for one in requests])

    def _say(self, requests: Sequence[Request], tokens: "torch.Tensor") -> None:
        said: list[tuple[Request, int | Exception]] = []
        for one, token in zip(requests, tokens.tolist(), strict=True):
            if not one.over:
                one.ids.append(token)
                one.over = token in self.stops or len(one.ids) == one.max_new_tokens
                said.append((one, token))
        hand_out(said)

    def _end(self, requests: Sequence[Request], problem: str) -> None:
        failed = [one for one in requests if not one.over]
        for one in failed:
            one.over = True
        hand_out([(one, RuntimeError(problem)) for one in failed])


def _cause(error: Exception, rows: int) -> str:
    """Returns an error as one line, after its traceback has gone to the log."""
    import torch

    _log.error("generation failed", exc_info=error)
    if isinstance(error, torch.OutOfMemoryError):
        return f"the memory is too small for {rows} answers at once; lower concurrency"
    return f"{type(error).__name__}: {error}".partition("\n")[0]
