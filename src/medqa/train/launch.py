"""Training as LLaMA-Factory does it, with what it lacks: early errors, safe resume, a record."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.config import load_llamafactory, nearest
from medqa.errors import ConfigError, DataError, MissingInputError, StepError
from medqa.paths import config_file, dataset_info, project_root, resolve, shown
from medqa.progress import progress
from medqa.train.folder import RECORD, STARTED, is_complete, locked, prepare

LOG = "train.log"
# What says where and how often to write, not what is learned: a resumed run may change it.
_NOT_DECISIVE = {"output_dir", "logging_steps", "save_total_limit", "report_to", "plot_loss"}
_REQUIRED = ("model_name_or_path", "dataset", "template", "stage", "output_dir")


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
        ConfigError: Everything that is wrong with the YAML.
        MissingInputError: The model or a data set is not there yet.
        TargetError: The output folder holds something else, or is being written.
        StepError: LLaMA-Factory failed; its last words are in the message.
    """
    values = load_llamafactory(config, overrides, "train")
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ConfigError(shown(config_file(config)), [f"missing key {key!r}" for key in missing])
    inputs = _inputs(values)
    settings = {key: value for key, value in values.items() if key not in _NOT_DECISIVE}
    target = resolve(values["output_dir"])
    if provenance.is_current(target / RECORD, step="train", inputs=inputs, config=settings):
        return f"up to date: {shown(target)}"
    with locked(target):
        prepare(target, inputs, settings, overwrite=overwrite)
        if not is_complete(target):
            _run(config_file(config), overrides, target)
        _record(target, inputs, settings)
    record = provenance.read(target / RECORD) or {}
    return (
        f"{shown(target)}: {record['steps']} steps, loss {record['train_loss']:.3f}, "
        f"{record['seconds_per_step']:.2f} s a step; log in {shown(target / LOG)}"
    )


def _inputs(values: dict[str, Any]) -> dict[str, str]:
    """Returns the digests of the model and of every data file, or says which step is missing."""
    model = values["model_name_or_path"]
    if not (resolve(model) / "config.json").is_file():
        how = "make model" if "chatglm3-6b" in model else "python scripts/import_model.py"
        raise MissingInputError(f"model {model} does not exist or is not whole; run: {how}")
    return provenance.model_digest(model) | provenance.digest(*_data_files(values))


def _data_files(values: dict[str, Any]) -> list[Path]:
    """Returns the files of the data sets that `values` names, as the registry has them."""
    registry = resolve(values.get("dataset_dir", "data")) / dataset_info().name
    try:
        entries = json.loads(registry.read_text(encoding="utf-8"))
    except FileNotFoundError:
        entries = {}
    except ValueError as error:
        raise DataError(f"{shown(registry)} is not JSON ({error}); restore it") from None
    wanted = [name for key in ("dataset", "eval_dataset") for name in _names(values.get(key))]
    unknown = [name for name in wanted if name not in entries]
    if unknown:
        told = ", ".join(f"{name!r}{nearest(name, entries)}" for name in unknown)
        known = ", ".join(entries) or "no data set"
        raise MissingInputError(
            f"data set {told} is not in {shown(registry)} (found: {known}); "
            "run: python scripts/convert.py configs/data/<name>.yaml"
        )
    files = [registry.parent / entries[name]["file_name"] for name in wanted]
    for name, file in zip(wanted, files, strict=True):
        if not file.is_file():
            raise MissingInputError(
                f"data set {name!r} is registered, but {shown(file)} is gone; "
                "run: python scripts/convert.py configs/data/<name>.yaml"
            )
    return files


def _names(given: str | list[str] | None) -> list[str]:
    names = given.split(",") if isinstance(given, str) else given or []
    return [name.strip() for name in names]


def _run(config: Path, overrides: Sequence[str], target: Path) -> None:
    """Starts LLaMA-Factory's own launcher, which also spreads over several cards, and watches it.

    Raises:
        StepError: It ended with another exit code than 0.
    """
    command = [sys.executable, "-m", "medqa.train.worker", str(config.resolve()), *overrides]
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    log = target / LOG
    sys.stderr.write(f"training; LLaMA-Factory's own words: {shown(log)}\n")
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=project_root(), env=environment, stdout=out, stderr=out, close_fds=False
        )
        try:
            _watch(process, target / "trainer_log.jsonl")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        raise StepError(
            f"LLaMA-Factory ended with exit code {process.returncode}: {_last_words(log)} "
            f"(the whole log: {shown(log)})"
        )


def _watch(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Shows the steps that LLaMA-Factory's trainer log reports until `process` ends."""
    before = len(_logged(log))
    while process.poll() is None and len(_logged(log)) == before:
        time.sleep(0.5)
    lines = _logged(log)
    total = lines[-1]["total_steps"] if lines else None
    with progress(f"train {shown(log.parent)}", total, "steps") as advance:
        done = 0
        while lines:
            advance(lines[-1]["current_steps"] - done)
            done = lines[-1]["current_steps"]
            if process.poll() is not None:
                break
            time.sleep(0.5)
            lines = _logged(log)
    process.wait()


def _logged(log: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a trainer log; the last may be half-written."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line.strip()]
    return said[-1].strip() if said else "it said nothing"


def _record(target: Path, inputs: dict[str, str], settings: dict[str, Any]) -> None:
    """Writes the run's record from what the trainer left.

    Raises:
        StepError: The trainer ended well but left no adapter or results.
    """
    results = provenance.read(target / "all_results.json")
    state = provenance.read(target / "trainer_state.json")
    weights = sorted(target.glob("*.safetensors"))
    if results is None or state is None or not weights:
        raise StepError(f"LLaMA-Factory ended well but left no trained weights in {shown(target)}")
    steps = state["global_step"]
    resumed_from = (provenance.read(target / STARTED) or {}).get("resumed_from", 0)
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    provenance.write(
        target / RECORD,
        step="train",
        inputs=inputs,
        config=settings,
        outputs=weights,
        seed=settings.get("seed"),
        steps=steps,
        resumed_from=resumed_from,
        train_loss=losses[-1] if losses else results["train_loss"],
        # The trainer counts the seconds since it resumed, and all steps.
        seconds_per_step=results["train_runtime"] / max(steps - resumed_from, 1),
    )
    (target / STARTED).unlink(missing_ok=True)
