"""LlamaBoard, LLaMA-Factory's web UI, on our model, data and recipe, and on this machine only.

LLaMA-Factory's own start listens on every network interface, opens a browser and knows nothing of
an imported model, nor of a recipe.
"""

import json
import os
import socket
import sys
from pathlib import Path

from medqa.errors import CheckpointError, ConfigError, MissingInputError, TargetError
from medqa.paths import project_root, resolve, shown
from medqa.remedies import require_no_code
from medqa.train import prefill

_LOCAL = ("127.0.0.1", "localhost", "::1")


def launch(host: str, port: int, model: str | None, root_path: str = "") -> None:
    """Serves LlamaBoard until it is interrupted.

    Args:
        host: The address to listen on.
        port: The port; no other is tried.
        model: The native checkpoint to fill in; None takes the imported 6B, else the tiny one.
        root_path: Where a reverse proxy shows the page, ``/proxy/6006`` or a whole address; empty
            where none stands before it.

    Raises:
        MissingInputError: No model has been imported yet.
        CheckpointError: `model` is no native checkpoint, or brings code of its own.
        ConfigError: `root_path` is no path and no address, or the recipe is wrong.
        TargetError: The port is taken.
    """
    folder = _checkpoint(model)
    root_path = _root_path(root_path)
    _require_free(host, port)
    os.chdir(project_root())  # LLaMA-Factory looks for its folders in the working directory
    shows = prefill.write(folder, chosen=model is not None)
    filled = prefill.values(shows) if shows else {}
    share = os.environ.get("GRADIO_SHARE", "").lower() in ("true", "1")
    _environment(host, port)
    if share or host not in _LOCAL:
        where = "the public link" if share else f"{host}:{port}"
        sys.stderr.write(f"warning: anyone who reaches {where} can run training and read files\n")
    on = shown(shows) if shows else "the model that was last chosen there"
    behind = f" (behind the proxy: {root_path})" if root_path else ""
    sys.stdout.write(f"starting on {on}, about 20 seconds: http://{host}:{port}{behind}\n")
    sys.stdout.flush()
    from medqa.train import llamaboard

    try:
        llamaboard.serve(host, port, root_path=root_path, share=share, filled=filled)
    except OSError as error:  # the port was taken meanwhile
        raise TargetError(f"cannot listen on {host}:{port} ({error})") from error


def _checkpoint(model: str | None) -> Path:
    known = prefill.DEFAULT_MODELS
    if model is None:
        model = next((m for m in known if (resolve(m) / "medqa_import.json").is_file()), None)
    if model is None:
        raise MissingInputError(
            f"no imported model ({' or '.join(known)}); run: make demo (tiny, a few minutes) or "
            "make model (ChatGLM3-6B, 12.5 GB)"
        )
    folder = resolve(model)
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError):
        raise MissingInputError(f"{shown(folder)} holds no readable config.json") from None
    if kind != "glm":
        raise CheckpointError(
            f"{shown(folder)} is a {kind!r} checkpoint, expected an imported one ('glm'); "
            f"run: python scripts/import_model.py {shown(folder)} models/NAME"
        )
    require_no_code(folder)
    return folder


def _root_path(given: str) -> str:
    """Returns `given` as Gradio wants it: without a slash at its end."""
    if given.startswith(("/", "http://", "https://")) or not given:
        return given.rstrip("/")
    raise ConfigError(
        "--root-path", [f"expected a path (/proxy/6006) or an address (https://…), found {given!r}"]
    )


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise TargetError(
                f"cannot listen on {host}:{port} ({getattr(error, 'strerror', None) or error}); "
                f"choose another: --port {port + 1 if port < 65535 else 7860}"
            ) from None


def _environment(host: str, port: int) -> None:
    os.environ["GRADIO_SERVER_NAME"] = host
    os.environ["GRADIO_SERVER_PORT"] = str(port)
    os.environ["GRADIO_NUM_PORTS"] = "1"  # or Gradio wanders up to a hundred ports on
    os.environ.pop("GRADIO_DEBUG", None)  # with it Gradio's launch would never return
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # Model and data are on this disk. HF_HUB_OFFLINE=0 lets the page download others.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
