"""The record that each step leaves beside its result, and the question whether it still holds.

It is written last, so a killed step leaves no record, and a step whose record is there and equal
in inputs and config is up to date.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medqa.errors import CheckpointError
from medqa.files import atomic_file, sha256
from medqa.paths import resolve, shown

PACKAGES = ("medqa", "llamafactory", "transformers", "peft", "torch", "datasets", "accelerate")


def digest(*files: Path) -> dict[str, str]:
    """Returns path (as shown) to SHA-256, the form in which inputs are recorded."""
    return {shown(file): sha256(file) for file in files}


def write(
    path: Path,
    *,
    step: str,
    inputs: Mapping[str, str],
    config: Mapping[str, Any],
    outputs: list[Path] | None = None,
    **facts: Any,
) -> None:
    """Writes the record of a finished step atomically.

    Args:
        path: The record's file.
        step: The step's name: ``import``, ``convert``, ``train`` …
        inputs: What it read: a path or a name, to a digest.
        config: The settings that decided the result.
        outputs: Files beside the record; their sizes are recorded and asked for by `is_current`.
        facts: What else the step found: counts, parity, seed.
    """
    record = {
        "step": step,
        "inputs": dict(inputs),
        "config": json.loads(json.dumps(config, default=str)),
        "outputs": {f.relative_to(path.parent).as_posix(): f.stat().st_size for f in outputs or []},
        **facts,
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    with atomic_file(path) as out:
        out.write(text.encode())


def read(path: Path) -> dict[str, Any] | None:
    """Returns the record at `path`; None when there is none or it cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def is_current(
    path: Path, *, step: str, inputs: Mapping[str, str], config: Mapping[str, Any]
) -> bool:
    """Says whether `path` records the same step on equal inputs, with its outputs still whole."""
    record = read(path)
    if record is None or record.get("step") != step:
        return False
    if record.get("inputs") != dict(inputs):
        return False
    if record.get("config") != json.loads(json.dumps(config, default=str)):
        return False
    return all(
        (path.parent / name).is_file() and (path.parent / name).stat().st_size == size
        for name, size in record.get("outputs", {}).items()
    )


def code(room: Path, without: Set[str] = frozenset()) -> str:
    """Returns a digest of the modules in the folder `room`, but for those named in `without`.

    Part of the settings of a step whose rules decide its result: another rule, another result.
    """
    files = sorted(file for file in room.glob("*.py") if file.stem not in without)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def model_digest(folder: str | Path) -> dict[str, str]:
    """Returns the digest of a model folder: its import or export record's fingerprint.

    Hashing 12 GB at every step would cost a minute; the record was made from the same bytes.
    A folder without a record is known by its files' names and sizes.
    """
    path = resolve(folder)
    for name in ("medqa_import.json", "medqa_export.json"):
        record = read(path / name)
        if record and "fingerprint" in record:
            return {shown(path): str(record["fingerprint"])}
    sizes = sorted((f.name, f.stat().st_size) for f in path.glob("*") if f.is_file())
    return {shown(path): f"unrecorded:{sizes}"}


def require_same_base(adapter: Path, base: Path) -> bool:
    """Checks that `adapter` was trained on the model in `base`.

    Returns:
        False when nothing says on what it was trained (a run of plain ``llamafactory-cli``).

    Raises:
        CheckpointError: Its record names another model.
    """
    run = read(adapter / "medqa_run.json")
    if run is None:
        return False
    trained_on = run.get("inputs", {})
    ((name, fingerprint),) = model_digest(base).items()
    if fingerprint not in trained_on.values():
        recorded = str(trained_on.get(name, "another model"))[:16]
        raise CheckpointError(
            f"{shown(adapter)} was trained on {recorded}, and {name} is {fingerprint[:16]}: they "
            "do not belong together; train again (make train) or name the right base"
        )
    return True
