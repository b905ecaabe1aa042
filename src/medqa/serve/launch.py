"""From a serve YAML to a server that runs, and to its end."""

import socket
from collections.abc import Sequence
from pathlib import Path

from medqa import config
from medqa.errors import TargetError
from medqa.paths import config_file, shown
from medqa.serve import access, checkpoint
from medqa.serve.settings import Settings

_BACKLOG = 2048  # connections that wait to be taken up; uvicorn's own


def serve(path: str | Path, overrides: Sequence[str] = ()) -> None:
    """Serves the model of a serve YAML until SIGTERM or Ctrl-C.

    Answers under way are finished first, for `shutdown_timeout` seconds at most; a second signal
    ends them.

    Raises:
        ConfigError: Everything that is wrong with the YAML, or no key where one is needed.
        MissingInputError: Model, adapter or guard is not there.
        CheckpointError: They do not belong together, or are not what was checked.
        TargetError: The port is taken.
        StepError: The model cannot be loaded.
    """
    settings = config.load(path, overrides, Settings)
    key = access.key_from_environment()
    access.require_safe(settings.host, key, shown(config_file(path)))
    checkpoint.require_present(settings)
    from medqa.serve.guard import Guard

    guard = Guard.load(settings.guard) if settings.guard else None
    with listen(settings.host, settings.port) as listening:
        from medqa.serve import server
        from medqa.serve.engine import Engine
        from medqa.serve.vllm_engine import VllmEngine

        kind = VllmEngine if settings.engine == "vllm" else Engine
        engine = kind(
            settings.model_name_or_path, settings.adapter_name_or_path, seats=settings.concurrency
        )

        def load() -> None:
            checkpoint.require_whole(settings)
            engine.start()

        server.run(settings, engine, load, guard=guard, key=key, listening=listening)


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens, so that a taken port is told before a model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's number asyncio leaves Nagle's algorithm on, and a token may wait 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise TargetError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); choose another: "
            f"port={port + 1 if port < 65535 else 8000}"
        ) from None
    return listening
