"""The import step: an original ChatGLM checkpoint becomes a checked native GLM one."""

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medqa import provenance
from medqa.errors import CheckpointError, TargetError
from medqa.files import atomic_folder, require_empty, sha256
from medqa.model.chatglm3 import (
    Weight,
    is_tied,
    layout,
    require_fit,
    size,
    write_config,
    write_weights,
)
from medqa.model.original import Original, Stored, describe, open_original
from medqa.model.tokenizer import Family, control_ids, family, sentencepiece, write_tokenizer
from medqa.paths import shown
from medqa.progress import progress

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

Dtype = Literal["keep", "bfloat16", "float16", "float32"]
RECORD = "medqa_import.json"
# Part of every record: raise it when what is written changes, so that old imports are redone.
FORMAT = 1
# Config, tokenizer and record; a real tokenizer.json takes 6 MB.
SMALL_FILES = 20_000_000


@dataclass(frozen=True)
class Imported:
    """What an import did: its lines for the reader, or that there was nothing to do."""

    target: Path
    current: bool
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A source that has passed every check that needs no tensor's values."""

    original: Original
    origin: str
    dtype: Dtype
    stored: Mapping[str, Stored]
    weights: list[Weight]
    tied: bool
    pieces: "SentencePieceProcessor"
    kind: Family

    @property
    def bytes(self) -> int:
        """What the written weights take."""
        return size(self.weights, self.stored, self.dtype)

    @property
    def written_dtype(self) -> str:
        """The dtype of the written embedding, and so the one that loaders use by default."""
        return self.stored[self.weights[0].original].dtype if self.dtype == "keep" else self.dtype

    @property
    def exact(self) -> bool:
        """No weight loses precision."""
        return all(
            self.dtype in {"keep", "float32", self.stored[w.original].dtype} for w in self.weights
        )


def import_model(
    source: Path, target: Path, *, dtype: Dtype, origin: str, overwrite: bool = False
) -> Imported:
    """Writes `source` to `target` as native GLM, checks what was written, and records it.

    Nothing is at `target` unless every check has passed. The record has the SHA-256 of every
    source file, and as a quick key also their sizes and modification times: while those are
    unchanged the content is taken as unchanged (hashing 12 GB at each run would cost ten
    seconds and more); where they differ, as after a copy, the hashes decide.

    Args:
        source: The original checkpoint's folder.
        target: The folder to write; must be empty or absent.
        dtype: The dtype of the written weights; ``keep`` leaves them as they are.
        origin: What the user named as the source, for the record: a folder or a hub id.
        overwrite: Replace a `target` that was made from something else.

    Raises:
        MissingInputError: A file of the checkpoint is missing.
        CheckpointError: The checkpoint is another model, damaged, or not representable.
        ConfigError: Its ``config.json`` lacks or mistypes a value.
        TargetError: The target is not empty, is the source, or the disk is too full.
        CheckFailedError: The written model is not right.
    """
    original = open_original(source)
    config = {"dtype": dtype, "format": FORMAT}
    _require_apart(source, target)
    if _is_current(original, target, config):
        return Imported(target, current=True)
    if not overwrite:
        require_empty(target)
    plan = _plan(original, origin, dtype)
    _require_room(target, plan.bytes + SMALL_FILES)
    stamps = _stamps(original)
    with atomic_folder(target, overwrite=overwrite) as folder, ThreadPoolExecutor(1) as pool:
        # hashlib frees the interpreter, so hashing runs beside the writing and the checks.
        hashes = {file.name: pool.submit(sha256, file) for file in original.files}
        _write(plan, folder)
        facts = _check(plan, folder, pool)
        provenance.write(
            folder / RECORD,
            step="import",
            inputs={name: hashed.result() for name, hashed in hashes.items()},
            config=config,
            outputs=sorted(p for p in folder.iterdir() if p.is_file()),
            origin=origin,
            stamps=stamps,
            family=plan.kind.name,
            **facts,
        )
    return Imported(target, False, (*facts["checks"], f"fingerprint: {facts['fingerprint']}"))


def _plan(original: Original, origin: str, dtype: Dtype) -> Plan:
    stored = describe(original.shards)
    tied = is_tied(original.config, stored)
    weights = layout(original.config, tied=tied)
    require_fit(weights, stored)
    pieces = sentencepiece(original.folder / "tokenizer.model")
    kind = family(original.folder, Path(origin).name)
    tokens, rows = max(control_ids(pieces, kind).values()) + 1, original.config.padded_vocab_size
    if tokens > rows:
        raise CheckpointError(
            f"tokenizer.model with {kind.name}'s control tokens needs {tokens:,} rows, but "
            f"padded_vocab_size is {rows:,}; is the tokenizer this model's own?"
        )
    return Plan(original, origin, dtype, stored, weights, tied, pieces, kind)


def _write(plan: Plan, folder: Path) -> None:
    ids = control_ids(plan.pieces, plan.kind)
    write_config(
        plan.original.config,
        folder,
        dtype=plan.written_dtype,
        stop_ids=[ids[token] for token in plan.kind.stops],
        tied=plan.tied,
        interpolated=plan.kind.interpolated,
    )
    write_tokenizer(plan.pieces, plan.kind, folder, plan.original.config.seq_length)
    with progress(f"import {plan.origin}", plan.bytes, "bytes") as advance:
        write_weights(plan.weights, plan.stored, folder, plan.dtype, advance)


def _check(plan: Plan, folder: Path, pool: ThreadPoolExecutor) -> dict[str, Any]:
    from medqa.model.check import check_forward, check_tokenizer
    from medqa.model.fingerprint import weights_fingerprint
    from medqa.model.golden import check_golden

    fingerprint = pool.submit(weights_fingerprint, folder)
    checks = [
        check_tokenizer(folder, plan.pieces, plan.kind),
        check_forward(folder),
    ]
    golden = plan.original.folder / "golden.npz"
    if golden.is_file():
        checks.append(check_golden(folder, golden, exact=plan.exact))
    return {"checks": checks, "fingerprint": fingerprint.result()}


def _is_current(original: Original, target: Path, config: Mapping[str, Any]) -> bool:
    """Says whether `target` is this import; hashes the source only where its stamps differ."""
    record = provenance.read(target / RECORD)
    if record is None:
        return False
    inputs = record.get("inputs", {})
    if record.get("stamps") != _stamps(original):
        sizes = {name: stamp[0] for name, stamp in record.get("stamps", {}).items()}
        if sizes != {name: stamp[0] for name, stamp in _stamps(original).items()}:
            return False
        inputs = {file.name: sha256(file) for file in original.files}
    return provenance.is_current(target / RECORD, step="import", inputs=inputs, config=config)


def _stamps(original: Original) -> dict[str, list[int]]:
    """Returns file name to size in bytes and modification time in nanoseconds."""
    stats = {file.name: file.stat() for file in original.files}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _require_apart(source: Path, target: Path) -> None:
    if source.resolve().is_relative_to(target.resolve()):
        raise TargetError(
            f"target {shown(target)} is or holds the source; choose another place, "
            "for example models/chatglm3-6b"
        )


def _require_room(target: Path, needed: int) -> None:
    place = next(p for p in target.resolve().parents if p.is_dir())
    if (free := shutil.disk_usage(place).free) < needed:
        raise TargetError(
            f"the imported model needs {needed / 1e9:,.1f} GB, but {shown(place)} has "
            f"{free / 1e9:,.1f} GB free; choose another disk or make room"
        )
