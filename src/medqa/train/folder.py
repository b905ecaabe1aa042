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
from medqa.files import clear
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
) -> None:
    """Makes `target` fit to start or to resume in, and notes there from which step the run goes on.

    A run that ended well without being recorded (its parent was killed) is left as it is.
    """
    unfinished = not (target / RECORD).exists() and provenance.is_current(
        target / STARTED, step="train", inputs=inputs, config=settings
    )
    resumed_from = 0
    if unfinished:
        if is_complete(target):
            return
        resumed_from = _keep_whole_checkpoints(target)
    elif any(target.iterdir()):
        if not overwrite:
            state = "a finished" if (target / RECORD).exists() else "an unfinished"
            raise TargetError(
                f"{shown(target)} holds {state} run of other settings, model or data; choose "
                "another output_dir=..., or add --overwrite to replace it"
            )
        clear(target)
    provenance.write(
        target / STARTED, step="train", inputs=inputs, config=settings, resumed_from=resumed_from
    )


def is_complete(target: Path) -> bool:
    """Says whether LLaMA-Factory's trainer came to its end in `target`.

    It writes the weights, then ``all_results.json``, then ``trainer_state.json``
    (llamafactory/train/sft/workflow.py).
    """
    names = ("all_results.json", "trainer_state.json")
    return all(provenance.read(target / name) for name in names)


def _keep_whole_checkpoints(target: Path) -> int:
    """Removes checkpoints that a kill left half-written, and what LLaMA-Factory would trip over.

    Trainer writes ``trainer_state.json`` last (transformers/trainer.py, ``_save_checkpoint``).

    Returns:
        The step of the last whole checkpoint; 0 when there is none.
    """
    last = 0
    for folder in target.glob("checkpoint-*"):
        state = provenance.read(folder / "trainer_state.json") or {}
        step = int(state.get("global_step", 0))
        # One at the very last step would be trained one step beyond it.
        if folder.name == f"checkpoint-{step}" and step < state.get("max_steps", 0):
            last = max(last, step)
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
