"""The record beside an exported model, and whether the folder is still what was checked then."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.errors import CheckpointError, MissingInputError
from medqa.paths import shown

RECORD = "medqa_export.json"

_READ = (
    *(".bin", ".h5", ".jinja", ".json", ".model", ".msgpack", ".pkl", ".pt", ".pth", ".py"),
    *(".safetensors", ".txt"),
)
"""Ends of the names of files that transformers or PEFT may read of a model's folder. One more of
them can change the model: ``model.safetensors`` is read before an index of shards, and
``adapter_config.json`` puts an adapter on top."""

_OURS = "medqa_*.json"
_BLOCK = 1 << 22


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Returns name to XXH3 (128 bits) of the files `names` in `folder`.

    12 GB take 3 seconds where the disk gives them. It tells a file that was changed or cut from the
    one that was written; it does not guard against someone who forges one, and the record with it.
    """
    import xxhash

    found = {}
    for name in sorted(names):
        state = xxhash.xxh3_128()
        with (folder / name).open("rb") as file:
            while block := file.read(_BLOCK):
                state.update(block)
        found[name] = state.hexdigest()
    return found


def verify(folder: Path) -> Mapping[str, Any]:
    """Checks that every file of an exported model has the bytes that were checked, and no other.

    The model card is not looked at: it may be edited. Neither are files that no model is read from.

    Args:
        folder: What `merge.export` wrote.

    Returns:
        The record: ``fingerprint``, ``parity``, ``answers``, ``weights`` …

    Raises:
        MissingInputError: There is no record of an export.
        CheckpointError: A file is gone, changed or added; says which.
    """
    record = provenance.read(folder / RECORD)
    if record is None or record.get("step") != "export":
        raise MissingInputError(
            f"{shown(folder)} is not a model that make export wrote (no {RECORD}); run: make export"
        )
    written: Mapping[str, str] = record.get("digests") or {}
    here = {file.name for file in folder.iterdir() if file.is_file()}
    wrong = [f"{name} is not there" for name in sorted(written.keys() - here)]
    wrong += [
        f"{name} has been changed"
        for name, digest in digests(folder, written.keys() & here).items()
        if digest != written[name]
    ]
    wrong += [
        f"{name} has been added"
        for name in sorted(here - written.keys())
        if Path(name).suffix in _READ and not Path(name).match(_OURS)
    ]
    if not written:
        wrong = ["its record is of an older version, without digests"]
    if wrong:
        raise CheckpointError(
            f"{shown(folder)} is not what was exported and checked: {'; '.join(wrong)}; make it "
            "again: make export OVERWRITE=1 (scripts/export.py … --overwrite)"
        )
    return record
