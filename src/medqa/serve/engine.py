"""A model that answers many at once: continuous batching, base and tuned in the memory of one.

Requests join the batch and leave it between two steps of the model (Yu et al. 2022, Orca, OSDI), on
a thread of their own. transformers has such a loop too (``generation/continuous_batching``); its
5.6.0 ends with the first failing forward, while whoever asks later waits for ever, has one way of
sampling for all, and knows no adapter that is on for some requests only.
"""

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medqa.errors import StepError, UserError
from medqa.paths import resolve, shown
from medqa.serve.detokenizer import Detokenizer
from medqa.serve.prompt import ChatFormat
from medqa.serve.request import Request
from medqa.serve.sampling import Sampler
from medqa.serve.scheduler import Scheduler
from medqa.serve.sides import Sides


class PromptTooLongError(UserError):
    """A prompt and the longest answer asked for are beyond the model's reach, or its memory's."""


class GenerationError(StepError):
    """An answer could not be finished: a failing forward, no memory, or the engine was closed."""


def require_reach(prompt: Sequence[int], max_new_tokens: int, reach: int) -> None:
    """Raises PromptTooLongError where prompt and answer have more than `reach` tokens together."""
    if len(prompt) + max_new_tokens > reach:
        raise PromptTooLongError(
            f"the question takes {len(prompt)} tokens, and up to {max_new_tokens} were asked for "
            f"in answer; together at most {reach} are possible; ask for less"
        )


@dataclass(frozen=True)
class Piece:
    """A part of an answer.

    Attributes:
        text: What was said since the piece before; whole characters. The pieces joined are the
            answer without white space around it. May be empty.
        tokens: How many tokens the answer takes so far, the end token included.
        finish_reason: On the last piece: ``stop`` the model ended it, ``length`` it was cut.
    """

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"] | None = None


class Engine:
    """A model in the memory of one process, which answers on its own thread.

    Args:
        model: Folder of a native model.
        adapter: Folder of a PEFT adapter of it; with it both sides are served.
        seats: Answers that are generated at once; more wait in turn.

    Attributes:
        sides: ``("tuned",)``, or ``("base", "tuned")`` with an adapter.
    """

    def __init__(self, model: str, adapter: str | None = None, *, seats: int = 32) -> None:
        self.sides = ("base", "tuned") if adapter else ("tuned",)
        self._folders = model, adapter
        self._seats = seats
        self._scheduler: Scheduler | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Loads the model and lets each side say a word; blocks, and wants no running event loop.

        Raises:
            MissingInputError: The model or the adapter is not there.
            CheckpointError: They do not belong together, or the adapter cannot be switched off.
            GenerationError: The model cannot answer.
        """
        model, adapter = self._folders
        loaded = Sides(model, adapter)
        self._format = ChatFormat(loaded.tokenizer, shown(resolve(model)))
        self._tokenizer = loaded.tokenizer
        self._scheduler = Scheduler(loaded, seats=self._seats)
        self._scheduler.start()
        try:
            asyncio.run(self._warm_up())
        except BaseException:
            self.close()
            raise
        if self._closed.is_set():  # while it loaded
            self.close()
            raise GenerationError("the engine was closed while it was starting")

    def close(self) -> None:
        """Ends what is running with a GenerationError, joins the thread, frees the memory."""
        self._closed.set()
        scheduler, self._scheduler = self._scheduler, None
        if scheduler:
            scheduler.close()
            del scheduler
            gc.collect()
            import torch

            torch.cuda.empty_cache()

    @property
    def running(self) -> int:
        """How many answers are being generated or wait for a seat."""
        return self._scheduler.running if self._scheduler else 0

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the prompt of a chat: ``[{"role": "user", "content": "…"}, …]``."""
        return self._format.encode(messages)

    def require_room(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        """Raises PromptTooLongError where `answer` would, before anything is streamed."""
        require_reach(prompt, max_new_tokens, self._started().reach)

    async def answer(
        self,
        side: str,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Answers; ``aclose()``, or a cancellation, stops the generation.

        Args:
            side: One of `sides`.
            prompt: Token ids, from `encode`.
            max_new_tokens: Where the answer is cut.
            temperature: 0 says the likeliest token each time; above, draws.
            top_p: Draws among the likeliest tokens that together have this probability.
            seed: Makes the draws repeatable.

        Raises:
            PromptTooLongError: See `require_room`.
            GenerationError: The forward failed; the next request is served.
        """
        assert side in self.sides
        self.require_room(prompt, max_new_tokens)
        scheduler = self._started()
        said: asyncio.Queue[int | Exception] = asyncio.Queue()
        request = Request(
            list(prompt),
            max_new_tokens,
            tuned=side == "tuned",
            sampler=Sampler(temperature, top_p, seed),
            loop=asyncio.get_running_loop(),
            said=said,
        )
        text, tokens = Detokenizer(self._tokenizer), 0
        scheduler.submit(request)
        try:
            while True:
                new = [await said.get()]
                while not said.empty():
                    new.append(said.get_nowait())
                if isinstance(new[-1], Exception):
                    raise GenerationError(str(new[-1])) from new[-1]
                ids = [token for token in new if isinstance(token, int)]
                tokens += len(ids)
                stopped = ids[-1] in scheduler.stops
                words = text.add(ids)
                if stopped or tokens == max_new_tokens:
                    words += text.end(cut=not stopped)
                    yield Piece(words, tokens, "stop" if stopped else "length")
                    return
                yield Piece(words, tokens)
        finally:
            scheduler.withdraw(request)

    def _started(self) -> Scheduler:
        if self._scheduler is None:
            raise GenerationError("the engine is not running")
        return self._scheduler

    async def _warm_up(self) -> None:
        for side in self.sides:
            prompt = self.encode([{"role": "user", "content": "你好"}])
            async for _ in self.answer(side, prompt, max_new_tokens=2):
                pass
