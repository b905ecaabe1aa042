"""A server with everything but a model: what answers is a parrot, held by the neck in tests.

As a program it is ``scripts/serve.py`` with the parrot in the model's place, slow enough to be met
by a signal: ``python -m tests.serve.parrot [key=value ...]``.
"""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
import yaml

from medqa.serve import server
from medqa.serve.app import make_app
from medqa.serve.engine import GenerationError, Piece, PromptTooLongError
from medqa.serve.guard import Guard
from medqa.serve.launch import listen
from medqa.serve.settings import Settings
from medqa.serve.traffic import Traffic

VALUES: dict[str, Any] = {
    "model_name_or_path": "models/parrot",
    "adapter_name_or_path": "saves/parrot",
    "name": "parrot",
    "guard": "configs/guard/guard.yaml",
    "port": 0,
    "max_new_tokens": 64,
    "max_prompt_tokens": 300,
    "max_prompt_characters": 250,
    "max_messages": 20,
    "max_body_bytes": 20_000,
    "concurrency": 4,
    "queue": 4,
    "request_timeout": 20.0,
    "shutdown_timeout": 10.0,
}


class Parrot:
    """Says the last question back, a character a token.

    Args:
        room: Tokens of prompt and answer that it can hold.
        pace: Seconds a token.

    Attributes:
        free: While it is cleared, answers stop before their next token.
        fails: Characters after which the next answers fail; None for never.
        heard: The prompts of all answers, as text.
        spoken: Tokens of all answers.
        loading: Seconds that it takes to start.
    """

    sides = ("base", "tuned")

    def __init__(self, room: int = 320, pace: float = 0.0) -> None:
        self.free = threading.Event()
        self.free.set()
        self.fails: int | None = None
        self.failure: Exception = GenerationError("the parrot is dead")
        self.heard: list[str] = []
        self.running = 0
        self.spoken = 0
        self.loading = 0.0
        self.room = room
        self._pace = pace

    def start(self) -> None:
        time.sleep(self.loading)

    def close(self) -> None: ...

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return [ord(c) for m in messages for c in f"<{m['role']}>{m['content']}"]

    def require_room(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        if len(prompt) + max_new_tokens > self.room:
            raise PromptTooLongError(f"{len(prompt)} and {max_new_tokens} tokens are too many")

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
        text = "".join(map(chr, prompt))
        self.heard.append(text)
        said = text.rpartition("<user>")[2] * (2 if side == "base" else 1)
        self.running += 1
        try:
            for n, character in enumerate(said[:max_new_tokens]):
                while not self.free.is_set():
                    await asyncio.sleep(0.005)
                if n == self.fails:
                    raise self.failure
                await asyncio.sleep(self._pace)
                self.spoken += 1
                yield Piece(character, n + 1)
            cut = len(said) > max_new_tokens
            tokens = max_new_tokens if cut else len(said) + 1
            yield Piece("", tokens, "length" if cut else "stop")
        finally:
            self.running -= 1


load_guard = cache(Guard.load)  # it takes a second, and has no state


@dataclass(frozen=True)
class Served:
    """A server on this machine, and what is behind it."""

    url: str
    port: int
    parrot: Parrot
    traffic: Traffic
    settings: Settings
    client: httpx.Client


@contextmanager
def serving(key: str | None = None, **changes: Any) -> Iterator[Served]:
    """Serves on a free port while the block runs."""
    settings = Settings(**VALUES | changes)
    parrot = Parrot()
    guard = load_guard(settings.guard) if settings.guard else None
    traffic = Traffic(
        concurrency=settings.concurrency, queue=settings.queue, timeout=settings.request_timeout
    )
    app = make_app(settings, parrot, guard, traffic, key)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    uvicorn = server.Server(app, settings, traffic)
    thread = threading.Thread(target=uvicorn.run, args=([listening],))
    thread.start()
    traffic.ready = True
    try:
        url = f"http://127.0.0.1:{port}"
        # verify: reading the certificates would take longer than most answers.
        with httpx.Client(base_url=url, timeout=30, verify=False, trust_env=False) as client:
            yield Served(url, port, parrot, traffic, settings, client)
    finally:
        parrot.free.set()
        uvicorn.should_exit = uvicorn.force_exit = True
        thread.join()
        listening.close()


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits for what other threads and processes bring about."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


def main() -> None:
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    values = {key: yaml.safe_load(value) for key, value in words.items()}
    parrot = Parrot(pace=values.pop("pace", 0.0))
    parrot.loading = values.pop("loading", 0.0)
    settings = Settings.model_validate(VALUES | values)
    guard = load_guard(settings.guard) if settings.guard else None
    with listen(settings.host, settings.port) as listening:
        server.run(settings, parrot, parrot.start, guard=guard, key=None, listening=listening)


if __name__ == "__main__":
    main()
