"""LlamaBoard, LLaMA-Factory's web UI, on our model and data, and on this machine only.

LLaMA-Factory's own start listens on every network interface, opens a browser and knows nothing of
an imported model.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from medqa.config import load_llamafactory, read_yaml
from medqa.errors import CheckpointError, MissingInputError, TargetError
from medqa.files import atomic_file
from medqa.paths import project_root, resolve, shown

MODEL_NAME = "ChatGLM3-6B-Chat"
"""The name under which LLaMA-Factory lists ChatGLM3-6B; it brings template chatglm3."""

DEFAULT_MODELS = ("models/chatglm3-6b", "models/tiny")
RECIPES = {"medqa.yaml": "chatglm3-6b", "medqa-tiny.yaml": "tiny"}
"""File under llamaboard_config to the recipe whose values it offers."""

_LOCAL = ("127.0.0.1", "localhost", "::1")
_WIDGETS: Mapping[str, tuple[str, type]] = {
    "learning_rate": ("train.learning_rate", str),
    "num_train_epochs": ("train.num_train_epochs", str),
    "max_grad_norm": ("train.max_grad_norm", str),
    "max_samples": ("train.max_samples", str),
    "cutoff_len": ("train.cutoff_len", int),
    "per_device_train_batch_size": ("train.batch_size", int),
    "gradient_accumulation_steps": ("train.gradient_accumulation_steps", int),
    "lr_scheduler_type": ("train.lr_scheduler_type", str),
    "logging_steps": ("train.logging_steps", int),
    "save_steps": ("train.save_steps", int),
    "packing": ("train.packing", bool),
    "neat_packing": ("train.neat_packing", bool),
    "report_to": ("train.report_to", str),
    "lora_rank": ("train.lora_rank", int),
    "lora_alpha": ("train.lora_alpha", int),
    "lora_dropout": ("train.lora_dropout", float),
    "lora_target": ("train.lora_target", str),
    "use_rslora": ("train.use_rslora", bool),
    "use_dora": ("train.use_dora", bool),
    "dataset_dir": ("train.dataset_dir", str),
}
"""Key of a recipe to the UI's element and the type it holds."""

_CHOSEN_IN_THE_UI = (
    "model_name_or_path",
    "template",
    "finetuning_type",
    "stage",
    "do_train",
    "dataset",
    "output_dir",
    "overwrite_output_dir",
    "bf16",
    "fp16",
    "enable_liger_kernel",
    "plot_loss",
    "trust_remote_code",
)


def launch(host: str, port: int, model: str | None) -> None:
    """Serves LlamaBoard until it is interrupted.

    Args:
        host: The address to listen on.
        port: The port; no other is tried.
        model: The native checkpoint to fill in; None takes the imported 6B, else the tiny one.

    Raises:
        MissingInputError: No model has been imported yet.
        CheckpointError: `model` is no native checkpoint.
        TargetError: The port is taken.
    """
    folder = _checkpoint(model)
    _require_free(host, port)
    os.chdir(project_root())  # LLaMA-Factory looks for its folders in the working directory
    prefill(folder, chosen=model is not None)
    _environment(host, port)
    if host not in _LOCAL:
        sys.stderr.write(
            f"warning: anyone who reaches {host}:{port} can run training and read files here\n"
        )
    sys.stdout.write(f"starting on {shown(folder)}, about 20 seconds: http://{host}:{port}\n")
    sys.stdout.flush()
    _serve(host, port)


def prefill(folder: Path, *, chosen: bool) -> None:
    """Writes what the UI reads at its start, keeping what the user has set there.

    Args:
        folder: The model.
        chosen: The user named it, so it replaces a path that is there.
    """
    file = resolve("llamaboard_cache/user_config.yaml")
    settings = read_yaml(file) if file.is_file() else {}
    # The UI fails with a KeyError where one of these is missing.
    settings = {"lang": None, "hub_name": None, "last_model": None, "cache_dir": None} | settings
    settings["lang"] = settings["lang"] or "zh"
    paths = dict(settings.get("path_dict") or {})
    known = Path(paths.get(MODEL_NAME, ""))
    ours = known in {resolve(m) for m in DEFAULT_MODELS}
    if chosen or ours or not known.is_absolute() or not known.is_dir():
        paths[MODEL_NAME] = str(folder)
    settings["path_dict"] = paths
    if chosen or not settings["last_model"]:
        settings["last_model"] = MODEL_NAME
    _write(file, settings)
    for name, recipe in RECIPES.items():
        offer, source = resolve("llamaboard_config") / name, f"configs/{recipe}/lora_sft.yaml"
        if not offer.exists() and resolve(source).is_file():
            _write(offer, elements(load_llamafactory(resolve(source), [], "train")))


def elements(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a training recipe as the UI's elements.

    What has no element of its own goes into the field for extra arguments, so that a run from the
    page and one from the YAML are the same.
    """
    names = str(recipe.get("dataset", "")).split(",")
    found: dict[str, Any] = {
        "train.training_stage": "Supervised Fine-Tuning",
        "train.dataset": [n.strip() for n in names if n.strip()],
        "train.compute_type": next((t for t in ("bf16", "fp16") if recipe.get(t)), "fp32"),
        "top.finetuning_type": recipe.get("finetuning_type", "lora"),
        "top.booster": "liger_kernel" if recipe.get("enable_liger_kernel") else "auto",
    }
    extra = {}
    for key, value in recipe.items():
        if key in _WIDGETS:
            element, kind = _WIDGETS[key]
            found[element] = kind(value)
        elif key not in _CHOSEN_IN_THE_UI:
            extra[key] = value
    found["train.extra_args"] = json.dumps(extra)
    return found


def _checkpoint(model: str | None) -> Path:
    if model is None:
        for default in DEFAULT_MODELS:
            if (resolve(default) / "medqa_import.json").is_file():
                return resolve(default)
        raise MissingInputError(
            f"no imported model ({' or '.join(DEFAULT_MODELS)}); run: make demo (tiny, a few "
            "minutes) or make model (ChatGLM3-6B, 12.5 GB)"
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
    return folder


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
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # The page starts training as a bare `llamafactory-cli`.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def _serve(host: str, port: int) -> None:
    from llamafactory.extras.misc import fix_proxy
    from llamafactory.webui.interface import create_ui

    from medqa import remedies

    fix_proxy(ipv6_enabled=":" in host)
    with remedies.applied():
        page = create_ui().queue()
        try:
            # Not run_web_ui: it always opens a browser.
            page.launch(server_name=host, server_port=port, inbrowser=False)
        except OSError as error:  # the port was taken meanwhile
            raise TargetError(f"cannot listen on {host}:{port} ({error})") from error


def _write(file: Path, values: Mapping[str, Any]) -> None:
    with atomic_file(file) as out:
        out.write(yaml.safe_dump(dict(values), allow_unicode=True, sort_keys=True).encode())
