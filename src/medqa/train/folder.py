"""The state of a training's output folder: free, unfinished, finished, in use."""

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.errors import TargetError
from medqa.files import atomic_file, clear
from medqa.paths import resolve, shown
from medqa.train import checkpoint, steps
from medqa.train.checkpoint import STATE, Checkpoint

RECORD = "medqa_run.json"
STARTED = "medqa_started.json"


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Holds the output folder; the trainer inherits the lock, so it outlives a killed parent.

    Raises:
        TargetError: Another training holds it.
    """
    target.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TargetError(
                f"another training is writing {shown(target)}; wait for it, or give another "
                "output_dir=..."
            ) from None
        except OSError as error:  # some network file systems
            sys.stderr.write(
                f"warning: {shown(target)} cannot be locked ({error.strerror}): see to it that no "
                "other training writes there\n"
            )
        yield
    finally:
        os.close(descriptor)


def is_unfinished(target: Path, inputs: dict[str, str], settings: dict[str, Any]) -> bool:
    """Says whether `target` holds a run of these inputs and settings that has no record yet."""
    return not (target / RECORD).exists() and provenance.is_current(
        target / STARTED, step="train", inputs=inputs, config=settings
    )


def prepare(
    target: Path, inputs: dict[str, str], settings: dict[str, Any], *, overwrite: bool
) -> Checkpoint | None:
    """Makes `target` fit to start or to resume in, and notes there from which step the run goes on.

    A run that ended well without being recorded (its parent was killed) is left as it is.

    Returns:
        The checkpoint to go on from; None for none.

    Raises:
        TargetError: It holds another run, and `overwrite` is false.
    """
    found = None
    if is_unfinished(target, inputs, settings):
        if is_complete(target):
            return None
        found = _resumable(target, settings)
        _keep(target, found)
    elif any(target.iterdir()):
        if not overwrite:
            state = "a finished" if (target / RECORD).exists() else "an unfinished"
            raise TargetError(
                f"{shown(target)} holds {state} run of other settings, model or data; choose "
                "another output_dir=..., or add --overwrite to replace it"
            )
        for record in (RECORD, STARTED):  # first, so that nothing half-cleared is trusted
            (target / record).unlink(missing_ok=True)
        clear(target)
    provenance.write(
        target / STARTED,
        step="train",
        inputs=inputs,
        config=settings,
        resumed_from=found.step if found else 0,
    )
    return found


def is_complete(target: Path) -> bool:
    """Says whether LLaMA-Factory's trainer came to its end in `target`, with whole weights.

    It writes the weights, then ``all_results.json``, then ``trainer_state.json``
    (llamafactory/train/sft/workflow.py, and the same in dpo and pt).
    """
    results = all(provenance.read(target / name) for name in ("all_results.json", STATE))
    return results and bool(checkpoint.weights(target))


def _resumable(target: Path, settings: dict[str, Any]) -> Checkpoint | None:
    """Returns the newest checkpoint from which the run ends as it would have undisturbed."""
    if settings.get("pissa_convert"):
        # LLaMA-Factory measures the result against the adapter it began with, and takes the
        # checkpoint's for that (train/callbacks.py, `PissaConvertCallback.on_train_begin`).
        return None
    if settings.get("fsdp") and settings.get("finetuning_type", "lora") == "lora":
        return None  # it would go on from another adapter (configs/accelerate/README.md)
    found = checkpoint.newest_whole(target)
    if found and found.ended and settings.get("streaming"):
        return None  # `launch` ends such a run by zero epochs, and a stream has no epochs
    return found


def _keep(target: Path, found: Checkpoint | None) -> None:
    """Removes what a killed run left beyond the checkpoint `found`."""
    folders = checkpoint.folders(target)
    newer = folders.index(found.folder) if found else len(folders)
    for folder in folders[:newer]:
        shutil.rmtree(folder)
    # LLaMA-Factory refuses a folder with files of a save that was not finished (hparams/parser.py).
    for pattern in ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", STATE):
        for file in target.glob(pattern):
            file.unlink()
    for name in ("all_results.json", "train_results.json", "eval_results.json"):
        (target / name).unlink(missing_ok=True)
    if found:
        _name_the_best(found)
    steps.cut(target / steps.LOG, found.step if found else 0)
    # Trainer takes the folder touched last for the newest when it deletes old ones, and a copy, or
    # a deletion that was killed, touches them in another order.
    now = time.time()
    for age, folder in enumerate(folders[newer:], start=1):
        moment = now - 10 * age
        os.utime(folder, (moment, moment))


def _name_the_best(found: Checkpoint) -> None:
    """Writes into the state of `found` where the best checkpoint is, should it have been moved."""
    if found.best is None:
        return
    state = provenance.read(found.folder / STATE) or {}
    best = found.folder.with_name(f"checkpoint-{found.best}")
    if resolve(state["best_model_checkpoint"]) != best:
        state["best_model_checkpoint"] = str(best)
        with atomic_file(found.folder / STATE) as out:
            out.write(json.dumps(state, indent=2, sort_keys=True).encode())
