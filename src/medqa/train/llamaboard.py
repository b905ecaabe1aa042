"""LlamaBoard as we serve it: filled in when a browser opens it, and leaving nothing running."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
    )
)
"""What a browser may load. Gradio names a script and a font elsewhere, and needs neither."""

_GRACE = 10.0
"""Seconds that a training has to end in when the server does."""


def serve(host: str, port: int, *, root_path: str, share: bool, filled: Mapping[str, Any]) -> None:
    """Serves the page until SIGINT, SIGTERM or SIGHUP; the training it started ends with it.

    Args:
        host: The address to listen on.
        port: The port; no other is tried.
        root_path: Where a reverse proxy shows the page: a path, or a whole address; or nothing.
        share: Ask Gradio for a public link.
        filled: The page's elements by name, and the values they have at first.

    Raises:
        OSError: The port is taken.
    """
    from llamafactory.extras.misc import fix_proxy
    from llamafactory.webui import interface
    from starlette.middleware import Middleware

    from medqa import remedies
    from medqa.train.event_stream import EndedByBothSides

    fix_proxy(ipv6_enabled=":" in host)
    filled = {**filled, **_of_this_machine()} if filled else {}
    with remedies.applied(), remedies.in_webui(), _engine(interface, filled) as runners:
        page = interface.create_ui().queue()
        with _told_to_stop() as stop, _ending(runners):
            # Not run_web_ui: it always opens a browser.
            page.launch(
                server_name=host,
                server_port=port,
                root_path=root_path,
                share=share,
                inbrowser=False,
                show_error=True,  # a failure's own words, in place of "Error"
                prevent_thread_lock=True,
                app_kwargs={
                    "middleware": [Middleware(_NothingFromElsewhere), Middleware(EndedByBothSides)]
                },
            )
            stop.wait()
            page.close(verbose=False)


def _of_this_machine() -> dict[str, Any]:
    """Returns what a recipe cannot have here: without a GPU no bfloat16 and no Liger kernel."""
    import torch

    if torch.accelerator.is_available():
        return {}
    return {"train.compute_type": "fp32", "top.booster": "auto"}


@contextmanager
def _engine(interface: Any, filled: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Lets LLaMA-Factory build its page on an engine that fills it in; yields the runners made."""
    from medqa import remedies

    runners: list[Any] = []

    class Engine(interface.Engine):  # type: ignore[misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            runners.append(self.runner)

        def resume(self) -> Iterator[Any]:
            """Yields what a page that has just been opened shows."""
            updates = super().resume()
            values = {name: {"value": value} for name, value in filled.items()}
            yield next(updates) | self._update_component(values)
            yield from updates  # a training that is running: its own values

    with remedies.replaced((interface, "Engine", Engine)):
        yield runners


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Yields an event that SIGINT, SIGTERM and SIGHUP set (unless ignored, as under nohup)."""
    stop = threading.Event()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ending(runners: list[Any]) -> Iterator[None]:
    """Ends the training that the page has started, with all its processes, after the block."""
    try:
        yield
    finally:
        for runner in runners:
            trainer = runner.trainer
            if trainer is None:
                continue
            runner.aborted = True  # it was us: the page prints no traceback
            # It leads a group of its own; torchrun's workers end with torchrun.
            with suppress(ProcessLookupError):
                os.killpg(trainer.pid, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    trainer.wait(_GRACE)
                os.killpg(trainer.pid, signal.SIGKILL)


class _NothingFromElsewhere:
    """ASGI middleware: tells the browser to load nothing that this server does not serve."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode("ascii"))
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        await self.app(scope, receive, sent if scope["type"] == "http" else send)
