"""uvicorn around the app: the model loads beside it, and a signal lets answers end first."""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from medqa.errors import MedqaError, StepError
from medqa.serve import journal
from medqa.serve.answer import AnyEngine
from medqa.serve.app import make_app
from medqa.serve.connection import Connection
from medqa.serve.guard import Guard
from medqa.serve.settings import Settings
from medqa.serve.traffic import Traffic

_CLOSING_SECONDS = 3  # for connections of clients that do not read the end of what they asked for


def run(
    settings: Settings,
    engine: AnyEngine,
    load: Callable[[], None],
    *,
    guard: Guard | None,
    key: str | None,
    listening: socket.socket,
) -> None:
    """Serves on a bound socket until a signal.

    Args:
        settings: The serve YAML.
        engine: What answers.
        load: Makes it ready to; called on a thread, so that the server lives meanwhile.
        guard: What stands before and after an answer.
        key: What clients must send; None for nothing.
        listening: The socket.

    Raises:
        MedqaError: What `load` raised; a StepError for anything else.
    """
    journal.to_stderr()
    traffic = Traffic(
        concurrency=settings.concurrency, queue=settings.queue, timeout=settings.request_timeout
    )
    server = Server(make_app(settings, engine, guard, traffic, key), settings, traffic)
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    page = f" (page: {address}/)" if settings.page else ""
    loading = Loading(load, server, f"serving {settings.name} on {address}{page}")
    _say(f"loading {settings.model_name_or_path}")
    loading.start()
    try:
        server.run(sockets=[listening])
    finally:
        engine.close()
    loading.require_well()
    _say("stopped")
    if loading.is_alive():
        # A thread inside torch cannot be ended, and the interpreter's own end under it is a crash.
        os._exit(0)


class Server(uvicorn.Server):
    """A server that ends in good order.

    The first signal makes it refuse what is new, by 503, and ends it when the last answer under way
    has ended; the second ends it at once.
    """

    def __init__(self, app: FastAPI, settings: Settings, traffic: Traffic) -> None:
        options = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
        )
        super().__init__(options)
        self.traffic = traffic
        self._patience = settings.shutdown_timeout
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes a signal; uvicorn would close the port at once and die of the signal at the end."""
        if self.traffic.stopping:
            self.should_exit = self.force_exit = True
        self.traffic.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Begins to end after a signal; uvicorn asks ten times a second."""
        if self.traffic.stopping and self._drain is None:
            self._drain = asyncio.create_task(self.traffic.drain(self._patience))
        if self._drain is not None and self._drain.done():
            self.should_exit = True
        return await super().on_tick(counter)


class Loading(threading.Thread):
    """Loads the model while the server already says that it lives, and is not ready."""

    def __init__(self, load: Callable[[], None], server: Server, told: str) -> None:
        super().__init__(name="medqa-loading", daemon=True)
        self._load = load
        self._server = server
        self._told = told
        self._failure: Exception | None = None

    def run(self) -> None:
        """Loads; then says so, or ends the server."""
        try:
            self._load()
        except Exception as error:
            self._failure = error
            self._server.should_exit = True
        else:
            self._server.traffic.ready = True
            _say(self._told)

    def require_well(self) -> None:
        """Raises what went wrong."""
        if isinstance(self._failure, MedqaError):
            raise self._failure
        if self._failure is not None:
            cause = f"{type(self._failure).__name__}: {self._failure}".partition("\n")[0]
            raise StepError(f"the model could not be loaded ({cause})") from self._failure


def _say(line: str) -> None:
    """Says something to whoever started the server; the journal goes to stderr."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
