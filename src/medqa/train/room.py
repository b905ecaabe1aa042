"""Where a run writes: is the folder free, and has the disk room for checkpoints and the merge."""

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medqa.model.budget import Shape, method
from medqa.paths import resolve, shown
from medqa.train.base import merged_folder
from medqa.train.findings import Findings
from medqa.train.folder import RECORD

SMALL_FILES = 20_000_000
"""Bytes beside the weights of a checkpoint or model: a real tokenizer takes 6 MB, logs the rest."""

_GB = 1e9
_SAVE_STEPS = 500  # transformers' default


def look_folder(
    target: Path, found: Findings, *, overwrite: bool, resuming: bool, held: bool
) -> None:
    """Looks at the state of the output folder.

    Args:
        target: The folder.
        found: Where the finding goes.
        overwrite: What it holds is to be replaced.
        resuming: What it holds is this run, to go on with or finished.
        held: This process has the folder's lock.
    """
    parent = _existing(target)
    if not parent.is_dir():
        found.problem("output", f"{shown(parent)} is a file, no folder", "output_dir=saves/...")
    elif not os.access(parent, os.W_OK | os.X_OK):
        found.problem("output", f"{shown(parent)} cannot be written", "output_dir=saves/...")
    elif not held and is_busy(target):
        found.problem(
            "output",
            f"another training is writing {shown(target)}",
            "wait for it, or output_dir=saves/...",
        )
    elif resuming and target.is_dir():
        found.ok("output", f"{shown(target)} holds this run: it goes on, or is finished")
    elif target.is_dir() and any(target.iterdir()) and not overwrite:
        state = "a finished" if (target / RECORD).exists() else "an unfinished"
        found.problem(
            "output",
            f"{shown(target)} holds {state} run of other settings, model or data",
            "output_dir=saves/..., or --overwrite to replace it",
        )
    else:
        found.ok("output", f"{shown(target)} is free" if not overwrite else f"{shown(target)}")


def is_busy(target: Path) -> bool:
    """Says whether another process holds the lock that `folder.locked` takes."""
    try:
        descriptor = os.open(target, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)  # frees it
    return False


def look_disk(
    values: Mapping[str, Any], config: Mapping[str, Any], steps: int, source: str, found: Findings
) -> None:
    """Looks whether the disks have room for what training and merging will write.

    Args:
        values: The recipe.
        config: The model's ``config.json``.
        steps: Steps of the whole run, estimated; decides only where every checkpoint is kept.
        source: The recipe's file; the merge's place is in ``export.yaml`` beside it.
        found: Where the finding goes.
    """
    target = _existing(resolve(values["output_dir"]))
    weights = sum(
        f.stat().st_size for f in resolve(values["model_name_or_path"]).glob("*.safetensors")
    )
    checkpoint, final = checkpoint_bytes(values, config)
    kept = _kept(values, steps)
    needed = kept * checkpoint + final
    present = sum(f.stat().st_size for f in target.glob("checkpoint-*/*") if f.is_file())
    free = shutil.disk_usage(target).free + present
    said = f"{kept} checkpoints of {checkpoint / _GB:,.2f} GB and the result take "
    said += f"{needed / _GB:,.2f} GB"
    if needed > free:
        found.problem(
            "disk",
            f"{said}, and {shown(target)} has {free / _GB:,.2f} GB free",
            "make room, or save_total_limit=1, or output_dir=<a place on another disk>",
        )
        return
    merge = _existing(merged_folder(source) or resolve("models"))
    total = weights + SMALL_FILES if values.get("finetuning_type", "lora") == "lora" else 0
    left = shutil.disk_usage(merge).free
    if total and merge.stat().st_dev == target.stat().st_dev:
        total, left = total + needed, left + present
    if total > left:
        found.warning(
            "disk",
            f"{said}; with the merged model of {weights / _GB:,.1f} GB it is more than the "
            f"{left / _GB:,.2f} GB that {shown(merge)} has free",
            "make room before make export",
        )
    else:
        found.ok("disk", f"{said}; {free / _GB:,.0f} GB free")


def checkpoint_bytes(values: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the bytes of a checkpoint and of the final result, optimiser left out of this.

    AdamW keeps two numbers for each trained one (8-bit optimisers less); DeepSpeed keeps the
    float32 weights with them. Of an adapter only itself is written, else the whole model.

    Args:
        values: The recipe.
        config: The model's ``config.json``, native GLM.

    Raises:
        KeyError: It is of another architecture.
    """
    shape = Shape.of(config)
    how = method(values, shape)
    divided = bool(values.get("deepspeed"))
    if how.trained:
        trained = shape.parameters if how.trained == -1 else how.trained * shape.layer
        rest = (shape.parameters - trained) * (4 if shape.dtype == "float32" else 2)
    else:
        trained = shape.layers * shape.lora(how.rank, how.targets, dora=how.dora)
        rest = 0
    width = 2 if divided else how.trained_bytes
    final = rest + trained * width + SMALL_FILES
    if values.get("save_only_model"):
        return final, final
    return final + trained * (12 if divided else 2 * width), final


def _kept(values: Mapping[str, Any], steps: int) -> int:
    """Returns the checkpoints that lie on the disk at the worst moment.

    A new one is written before the oldest is removed, and a limit of one keeps the best and the
    last (``rotate_checkpoints`` of transformers).
    """
    strategy = values.get("save_strategy", "steps")
    if strategy == "no":
        return 0
    every = float(values.get("save_steps") or _SAVE_STEPS)
    if strategy == "epoch":
        made = max(round(float(values.get("num_train_epochs", 3))), 1)
    else:
        made = int(steps / every) + 1 if every >= 1 else int(1 / every) + 1
    limit = values.get("save_total_limit")
    if not limit:
        return made
    least = 2 if values.get("load_best_model_at_end") else 1
    return min(made, max(int(limit), least) + 1)


def _existing(place: Path) -> Path:
    """Returns `place`, or the nearest folder above it that exists."""
    return next(p for p in (place, *place.absolute().parents) if p.exists())
