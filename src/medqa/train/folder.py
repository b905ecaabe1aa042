"""The state of a training's output folder: free, unfinished, finished, in use."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.errors import TargetError
from medqa.paths import shown

RECORD = "medqa_run.json"
STARTED = "medqa_started.json"


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Holds the output folder; the trainer inherits the lock, so it outlives a killed parent."""
    target.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise TargetError(
            f"another training is writing {shown(target)}; wait for it, or give another output_dir"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


def prepare(
    target: Path, inputs: dict[str, str], settings: dict[str, Any], *, overwrite: bool
) -> int:
    """Makes `target` fit to start or to resume in.

    Returns:
        The step from which the run goes on; 0 when it starts.
    """
    unfinished = not (target / RECORD).exists() and provenance.is_current(
        target / STARTED, step="train", inputs=inputs, config=settings
    )
    if unfinished:
        return _keep_whole_checkpoints(target)
    if any(target.iterdir()):
        if not overwrite:
            state = "a finished" if (target / RECORD).exists() else "an unfinished"
            raise TargetError(
                f"{shown(target)} holds {state} run of other settings, model or data; choose "
                "another output_dir=..., or add --overwrite to replace it"
            )
        _clear(target)
    provenance.write(target / STARTED, step="train", inputs=inputs, config=settings)
    return 0


def _keep_whole_checkpoints(target: Path) -> int:
    """Removes checkpoints that a kill left half-written, and what LLaMA-Factory would trip over.

    Trainer writes ``trainer_state.json`` last (transformers/trainer.py, ``_save_checkpoint``).

    Returns:
        The step of the last whole checkpoint; 0 when there is none.
    """
    last = 0
    for folder in target.glob("checkpoint-*"):
        state = provenance.read(folder / "trainer_state.json")
        if state and f"checkpoint-{state.get('global_step')}" == folder.name:
            last = max(last, state["global_step"])
        else:
            shutil.rmtree(folder)
    # Files of a save that was not finished make it refuse the folder (hparams/parser.py).
    for name in (
        "adapter_model.safetensors",
        "adapter_config.json",
        "trainer_state.json",
        "all_results.json",
    ):
        (target / name).unlink(missing_ok=True)
    return last


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
