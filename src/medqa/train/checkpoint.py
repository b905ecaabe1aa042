"""Checkpoints of transformers' Trainer: which of them are whole, found without unpickling.

A kill leaves one without its last files, a power cut one with empty or short files, and a kill
during the deletion of old ones leaves one without any file whatever.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medqa import provenance

STATE = "trainer_state.json"

# What a training needs to go on as if nothing had happened, and by what names it goes under one
# process or DDP, DeepSpeed (global_step*) and FSDP (pytorch_model_fsdp*, optimizer.bin,
# optimizer_0): transformers/trainer.py, `_save_checkpoint`.
_PARTS = {
    "weights": ("*.safetensors", "*/*.safetensors", "global_step*", "pytorch_model*"),
    "the optimiser's state": ("optimizer*", "global_step*"),
    "the learning rate's state": ("scheduler.pt", "global_step*"),
    "the random numbers' state": ("rng_state*.pth",),
}


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        folder: Where it is.
        step: How many steps were done.
        ended: The trainer had decided to stop here: the last step, or stopped early.
        best: The step of the best checkpoint so far; None when none is sought.
    """

    folder: Path
    step: int
    ended: bool
    best: int | None


def newest_whole(target: Path) -> Checkpoint | None:
    """Returns the newest checkpoint in `target` from which a training can go on; None for none.

    One whose best predecessor is gone or damaged is passed over: the end of the training would
    want to load it.
    """
    for folder in folders(target):
        if fault(folder):
            continue
        found = _read(folder)
        best = target / f"checkpoint-{found.best}"
        if found.best is None or best == folder or not fault(best):
            return found
    return None


def folders(target: Path) -> list[Path]:
    """Returns the checkpoint folders in `target`, the newest step first."""
    steps = {}
    for folder in target.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        if number.isdecimal() and folder.is_dir():
            steps[int(number)] = folder
    return [steps[step] for step in sorted(steps, reverse=True)]


def fault(folder: Path) -> str:
    """Says what is wrong with the checkpoint in `folder`; an empty text when it is whole."""
    state = provenance.read(folder / STATE)  # the last file that is written
    if state is None or folder.name != f"checkpoint-{state.get('global_step')}":
        return f"{STATE} is not whole"
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))]
    for part, patterns in _PARTS.items():
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            return f"{part} are not there" if part == "weights" else f"{part} is not there"
    ranks = {path.stem.removeprefix("rng_state_") for path in folder.glob("rng_state_*.pth")}
    if ranks and (len(ranks) == 1 or ranks != {str(rank) for rank in range(len(ranks))}):
        return "the random numbers' state of another process is not there"
    torn = next((name for name in names if not is_whole(folder / name)), None)
    return f"{torn} is not whole" if torn else ""


def is_whole(path: Path) -> bool:
    """Says whether a file is of the length, and of the form, that its kind has.

    Known are safetensors, an index of them, JSON, and what ``torch.save`` writes: a zip archive,
    its table at the end, each member with its CRC-32. Others are not looked into.
    """
    if path.is_dir():
        return True
    match path.suffix:
        case ".safetensors":
            return _is_whole_safetensors(path)
        case ".json":
            return _is_whole_json(path)
        case ".pt" | ".pth" | ".bin":
            return _is_whole_zip(path)
        case _:
            return True


def weights(folder: Path) -> list[Path]:
    """Returns the files of the trained weights in `folder`; none when one of them is not whole."""
    found = sorted(folder.glob("*.safetensors"))
    indices = list(folder.glob("*.safetensors.index.json"))
    return found if found and all(is_whole(file) for file in found + indices) else []


def best_step(state: dict[str, Any]) -> int | None:
    """Returns the step of the best checkpoint that a trainer's state names; None for none.

    The state has its path: in a folder that was moved since, only the name still holds.
    """
    number = str(state.get("best_model_checkpoint")).rpartition("-")[2]
    return int(number) if number.isdecimal() else None


def _read(folder: Path) -> Checkpoint:
    state = provenance.read(folder / STATE) or {}
    step = int(state["global_step"])
    return Checkpoint(folder, step, _had_ended(state, step), best_step(state))


def _had_ended(state: dict[str, Any], step: int) -> bool:
    control = (state.get("stateful_callbacks") or {}).get("TrainerControl") or {}
    stopped = bool((control.get("args") or {}).get("should_training_stop"))
    return stopped or 0 < state.get("max_steps", 0) <= step


def _is_whole_safetensors(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        # It compares the file's length with what the header says.
        with safe_open(path, framework="numpy"):
            return True
    except (SafetensorError, OSError):
        return False


def _is_whole_json(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not path.name.endswith(".safetensors.index.json"):
        return True
    shards = set(found.get("weight_map", {}).values()) if isinstance(found, dict) else set()
    return bool(shards) and all((path.parent / shard).is_file() for shard in shards)


def _is_whole_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False
