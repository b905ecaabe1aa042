"""Training as LLaMA-Factory does it, with what it lacks: early errors, safe resume, a record."""

import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.config import load_llamafactory, spelled
from medqa.errors import MedqaError, StepError
from medqa.paths import config_file, resolve, shown
from medqa.train import checkpoint, preflight, trainer
from medqa.train.checkpoint import Checkpoint
from medqa.train.folder import RECORD, STARTED, is_complete, is_unfinished, locked, prepare
from medqa.train.inputs import decisive, digests
from medqa.train.settings import has_required

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def train(config: str | Path, overrides: Sequence[str] = (), *, overwrite: bool = False) -> str:
    """Runs one training recipe through ``llamafactory-cli train``.

    A finished run on equal inputs is left as it is; a killed one goes on from its last whole
    checkpoint.

    Args:
        config: A complete LLaMA-Factory YAML.
        overrides: ``key=value`` replacements.
        overwrite: Replace a run that was made from other inputs.

    Returns:
        One line that says what was done.

    Raises:
        ConfigError: Keys that LLaMA-Factory does not know, and values of the wrong kind.
        PreflightError: Everything else that would go wrong, each with its cure.
        TargetError: Another training is writing the output folder.
        StepError: LLaMA-Factory failed, or the disk is full; the message says how to go on.
    """
    file = config_file(config)
    source = shown(file)
    values = load_llamafactory(file, overrides, "train")
    if not has_required(values):
        preflight.require(values, source=source, overwrite=overwrite)
    try:
        inputs = digests(values, file)
    except MedqaError:
        preflight.require(values, source=source, overwrite=overwrite)  # says this and all else
        raise
    settings = decisive(values)
    target = resolve(values["output_dir"])
    if provenance.is_current(target / RECORD, step="train", inputs=inputs, config=settings):
        return f"up to date: {shown(target)}"
    with _room_to_write(target), locked(target):
        resuming = is_unfinished(target, inputs, settings)
        if not (resuming and is_complete(target)):
            warnings = preflight.require(
                values, source=source, overwrite=overwrite, resuming=resuming, held=True
            )
            sys.stderr.writelines(f"warning: {line}\n" for line in warnings)
        found = prepare(target, inputs, settings, overwrite=overwrite)
        if not is_complete(target):
            done = found.step if found else 0
            trainer.run(file, [*spelled(overrides), *_going_on(found)], target, done)
        _record(target, inputs, settings)
    return _result(target)


@contextmanager
def _room_to_write(target: Path) -> Iterator[None]:
    """Says in one line that the disk is full, where we find it and not the trainer."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StepError(trainer.full_disk(target)) from None


def _going_on(found: Checkpoint | None) -> list[str]:
    """Returns the overrides with which LLaMA-Factory goes on from the checkpoint `found`."""
    if found is None:
        return []
    overrides = [
        # Named, because with ``overwrite_output_dir: true`` it would begin again.
        f"resume_from_checkpoint={json.dumps(shown(found.folder))}",
        # Else early stopping counts its patience anew.
        "restore_callback_states_from_checkpoint=true",
    ]
    if found.ended:
        # Trainer would do one step more before it looks whether to stop. With no epoch to run it
        # only takes the best checkpoint, if one is sought, and writes the final weights.
        overrides += ["max_steps=-1", "num_train_epochs=0.0"]
    return overrides


def _record(target: Path, inputs: dict[str, str], settings: dict[str, Any]) -> None:
    """Writes the run's record from what the trainer left.

    Raises:
        StepError: The trainer ended well but left no weights or results.
    """
    weights = checkpoint.weights(target)
    results = provenance.read(target / "all_results.json")
    state = provenance.read(target / checkpoint.STATE)
    if results is None or state is None or not weights:
        raise StepError(f"LLaMA-Factory ended well but left no trained weights in {shown(target)}")
    for file in weights:
        with file.open("rb") as written:
            os.fsync(written.fileno())  # the record must not reach the disk before them
    resumed_from = (provenance.read(target / STARTED) or {}).get("resumed_from", 0)
    provenance.write(
        target / RECORD,
        step="train",
        inputs=inputs,
        config=settings,
        outputs=weights,
        seed=settings.get("seed"),
        resumed_from=resumed_from,
        **_measured(results, state, resumed_from, best=settings.get("load_best_model_at_end")),
    )
    (target / STARTED).unlink(missing_ok=True)


def _measured(
    results: dict[str, Any], state: dict[str, Any], resumed_from: int, *, best: bool | None
) -> dict[str, Any]:
    """Returns what a finished training measured; what it did not measure is left out.

    * ``train_loss``: mean over the last logged steps; where none was logged, over all steps.
    * ``best_step`` and ``eval_loss``: of the weights that were kept.
    """
    steps = state["global_step"]
    done = steps - resumed_from
    found = {"steps": steps}
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    if losses:
        found["train_loss"] = losses[-1]
    elif done and "train_loss" in results:
        # The trainer divides the sum since it resumed by all steps.
        found["train_loss"] = results["train_loss"] * steps / done
    if done:
        # It counts the seconds since it resumed.
        found["seconds_per_step"] = results["train_runtime"] / done
    kept = checkpoint.best_step(state) if best else None
    if kept is not None:
        found["best_step"] = kept
    evaluated = {e["step"]: e["eval_loss"] for e in state["log_history"] if "eval_loss" in e}
    if (kept or steps) in evaluated:
        found["eval_loss"] = evaluated[kept or steps]
    return found


def _result(target: Path) -> str:
    record = provenance.read(target / RECORD) or {}
    parts = [f"{record['steps']} steps"]
    if "train_loss" in record:
        parts.append(f"loss {record['train_loss']:.3f}")
    if "eval_loss" in record:
        of = f" (step {record['best_step']}, the best, is kept)" if "best_step" in record else ""
        parts.append(f"evaluation loss {record['eval_loss']:.3f}{of}")
    if "seconds_per_step" in record:
        parts.append(f"{record['seconds_per_step']:.2f} s a step")
    return f"{shown(target)}: {', '.join(parts)}; log in {shown(target / trainer.LOG)}"
