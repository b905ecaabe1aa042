"""The import step: an original ChatGLM checkpoint becomes a checked native GLM one."""

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medqa import provenance
from medqa.errors import CheckpointError, TargetError
from medqa.files import atomic_folder, require_empty, sha256
from medqa.model.chatglm3 import Weight, is_tied, layout, require_fit, size, write_weights
from medqa.model.original import Original, open_original
from medqa.model.shards import Stored, describe
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
    kind = family(source, Path(origin).name)
    config = {"dtype": dtype, "family": kind.name, "format": FORMAT}
    _require_apart(source, target)
    if _is_current(original, target, config):
        return Imported(target, current=True)
    if not overwrite:
        require_empty(target)
    plan = _plan(original, kind, dtype)
    _require_room(target, plan.bytes + SMALL_FILES)
    stamps = _stamps(original)
    with atomic_folder(target, overwrite=overwrite) as folder, _worker() as a, _worker() as b:
        # The disk is the bottleneck: what needs a processor runs beside the writing, and what
        # is not on the disk yet goes there beside the checks.
        small = a.submit(_write_small_files, plan, folder)
        hashes = Hashes(original, b)
        with progress(f"import {origin}", plan.bytes, "bytes") as advance:
            write_weights(plan.weights, plan.stored, folder, dtype, hashes.begin, advance)
        fingerprint = a.submit(_fingerprint, folder)
        b.submit(_flush, folder)
        checks = [small.result(), *_check_weights(plan, folder)]
        provenance.write(
            folder / RECORD,
            step="import",
            inputs=hashes.all(),
            config=config,
            outputs=_readable_by_all(folder),
            origin=origin,
            stamps=stamps,
            checks=checks,
            fingerprint=fingerprint.result(),
        )
    return Imported(target, False, (*checks, f"fingerprint: {fingerprint.result()}"))


class Hashes:
    """SHA-256 of the source files, made in a worker one shard ahead of the writer.

    Hashing reads a shard from end to end, so the writer, which maps it, finds it in the page
    cache; faulting 12 GB in from the disk took twice the time of the whole copy. A shard that is
    done leaves the cache again, to keep what is written there for the checks.
    """

    def __init__(self, original: Original, worker: ThreadPoolExecutor) -> None:
        self._worker = worker
        self._files = [*original.shards, *(f for f in original.files if f not in original.shards)]
        self._hashes: dict[Path, Future[str]] = {}

    def begin(self, shard: Path) -> None:
        """Returns when `shard` has been read; the next one is being read then."""
        number = self._files.index(shard)
        for file in self._files[: number + 2]:
            self._start(file)
        self._hashes[shard].result()
        for file in self._files[:number]:
            _leave_cache(file)

    def all(self) -> dict[str, str]:
        """Returns file name to hash, for every file of the source."""
        for file in self._files:
            self._start(file)
        return {file.name: hashed.result() for file, hashed in self._hashes.items()}

    def _start(self, file: Path) -> None:
        if file not in self._hashes:
            self._hashes[file] = self._worker.submit(sha256, file)


def _leave_cache(file: Path) -> None:
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def _worker() -> Iterator[ThreadPoolExecutor]:
    """Yields a thread beside ours; on an error (or Ctrl-C) what it has not begun is dropped."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _plan(original: Original, kind: Family, dtype: Dtype) -> Plan:
    stored = describe(original.shards)
    tied = is_tied(original.config, stored)
    weights = layout(original.config, tied=tied)
    require_fit(weights, stored)
    pieces = sentencepiece(original.folder / "tokenizer.model")
    tokens, rows = max(control_ids(pieces, kind).values()) + 1, original.config.padded_vocab_size
    if tokens > rows:
        raise CheckpointError(
            f"tokenizer.model with {kind.name}'s control tokens needs {tokens:,} rows, but "
            f"padded_vocab_size is {rows:,}; is the tokenizer this model's own?"
        )
    return Plan(original, dtype, stored, weights, tied, pieces, kind)


def _write_small_files(plan: Plan, folder: Path) -> str:
    """Writes configs and tokenizer, checks the tokenizer, and returns the check's line."""
    from medqa.model.check import check_tokenizer
    from medqa.model.glm_config import write_config

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
    return check_tokenizer(folder, plan.pieces, plan.kind)


def _check_weights(plan: Plan, folder: Path) -> list[str]:
    from medqa.model.check import check_forward
    from medqa.model.golden import check_golden

    lines = [check_forward(folder)]
    golden = plan.original.folder / "golden.npz"
    if golden.is_file():
        lines.append(check_golden(folder, golden, exact=plan.exact))
    return lines


def _flush(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _fingerprint(folder: Path) -> str:
    from medqa.model.fingerprint import weights_fingerprint

    return weights_fingerprint(folder)


def _readable_by_all(folder: Path) -> list[Path]:
    """Returns the files of `folder`; safetensors makes its own private to their owner."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for file in files:
        shutil.copymode(folder / "config.json", file)
    return files


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
