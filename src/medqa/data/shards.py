"""Raw files to tables of records, in pieces that any number of workers share.

The pieces, and so the results, are the same whoever works on them. Each is written whole or not at
all; what a killed run finished is not done again.
"""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import orjson

from medqa.data import formats, pool, unpacking, worker
from medqa.data.formats import Stretch
from medqa.data.rows import NOT_UTF8, Settings
from medqa.data.sources import Source
from medqa.data.worker import EXAMPLES, PARTIAL, Shard
from medqa.errors import StepError
from medqa.files import atomic_file, clear, locked_folder
from medqa.paths import shown
from medqa.progress import progress

SHARD_BYTES = 4 << 20  # of rows that are no links: a second of work
PLAN = "plan.json"
# The modules of this room that decide what becomes of a row.
CODE = (
    "bulk",
    "clean",
    "courtesies",
    "drop",
    "formats",
    "kinds",
    "links",
    "mend",
    "names",
    "normal",
    "privacy",
    "rows",
    "shards",
    "sources",
    "split",
    "tables",
    "triggers",
    "unpacking",
    "words",
    "worker",
)
LIBRARIES = ("jieba", "orjson", "phonenumbers", "pyarrow", "python-stdnum", "xxhash")


@dataclass(frozen=True)
class Shards:
    """What was made of the raw files.

    Attributes:
        tables: Parquet tables of records, in order. Columns: source str, row u32, part u32,
            question str, answer str, department str, question_key u64, answer_key u64, canonical
            str, rank u64; of preferences also rejected str, rejected_key u64.
        rejects: JSON lines, in the same order: id, source, reason, raw.
        books: ``sources``: tag to rows, pairs, kept and reasons; ``rules``: name to count and at
            most three examples ``[before, after]``; ``notes``: a line for each damaged file;
            ``files``: of each file its name, source, first row number and rows.
    """

    tables: list[Path]
    rejects: list[Path]
    books: dict[str, Any]


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    sources: Sequence[Source],
    settings: Settings,
    work: Path,
    *,
    workers: int,
    runner: Literal["local", "ray"] = "local",
    label: str,
) -> Shards:
    """Converts every row of `sources`.

    Args:
        sources: Checked by `sources.require`.
        settings: What to do with a row.
        work: Folder for the results. What an earlier run with the same files, settings and code
            finished there is taken over; all else in it is removed. With a Ray cluster of several
            machines it must be shared by them, as the raw files must.
        workers: Processes.
        runner: ``local``, or ``ray`` for the cluster that ``RAY_ADDRESS`` names, or a local Ray
            where it names none.
        label: For the progress display.

    Raises:
        DataError: A raw file as a whole cannot be used.
        TargetError: Another process is at work in the same folder.
        StepError: The disk is full, or a worker died.
    """
    with _disk(work):
        work.mkdir(parents=True, exist_ok=True)
        with locked_folder(work), _pool(sources, workers, runner) as each:
            _settle(work, _plan(sources, settings))
            stretches, notes = _stretches(sources, work, each)
            shards = [
                Shard(stretch, settings, work / f"{number:05d}")
                for number, stretch in enumerate(stretches)
            ]
            waiting = [shard for shard in shards if shard.finished(verified=True) is None]
            # What takes longest first, so that all workers end at about the same time.
            waiting.sort(key=lambda shard: -shard.stretch.weight)
            with progress(label, sum(s.rows for s in stretches), "rows") as advance:
                done = set(map(id, shards)) - set(map(id, waiting))
                advance(sum(shard.stretch.rows for shard in shards if id(shard) in done))
                for shard in each(worker.work, waiting):
                    advance(shard.stretch.rows)
            return Shards(
                [shard.table for shard in shards],
                [shard.rejects for shard in shards],
                _books(shards, notes),
            )


def _pool(
    sources: Sequence[Source], workers: int, runner: Literal["local", "ray"]
) -> AbstractContextManager[pool.Each]:
    """Returns the workers; where there is much to do they start while it is being shared out."""
    if runner == "ray":
        return pool.ray(workers)
    much = sum(file.stat().st_size for s in sources for file in s.files) > SHARD_BYTES
    return pool.local(workers, worker.prepare if much else None)


def _plan(sources: Sequence[Source], settings: Settings) -> dict[str, Any]:
    """Returns all that decides the results, as JSON."""
    code = hashlib.sha256()
    for name in CODE:
        code.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    inputs = [
        [str(file), file.stat().st_size, file.stat().st_mtime_ns, source.source, source.columns]
        for source in sources
        for file in source.files
    ]
    plan = {
        "inputs": inputs,
        "settings": repr(settings),
        "code": code.hexdigest(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "shard_bytes": SHARD_BYTES,
    }
    return dict(orjson.loads(orjson.dumps(plan, default=str)))


def _settle(work: Path, plan: dict[str, Any]) -> None:
    """Makes `work` a folder of `plan`: with what was finished of it and nothing else."""
    try:
        same = orjson.loads((work / PLAN).read_bytes()) == plan
    except (OSError, ValueError):
        same = False
    if not same:
        clear(work)
        with atomic_file(work / PLAN) as out:
            out.write(orjson.dumps(plan))
    for file in work.glob(f"*{PARTIAL}"):  # of workers that were killed
        file.unlink(missing_ok=True)


def _stretches(
    sources: Sequence[Source], work: Path, each: pool.Each
) -> tuple[list[Stretch], list[str]]:
    """Returns what there is to do, and the notes on files that break off."""
    originals = [(source, file) for source in sources for file in source.files]
    copies = {
        (source.source, file): _Copy(file, work / f"{number:05d}.plain")
        for number, (source, file) in enumerate(originals)
        if file.suffix in unpacking.SUFFIXES
    }
    for _ in each(_unpack, [copy for copy in copies.values() if not copy.found.exists()]):
        pass
    stretches: list[Stretch] = []
    notes: list[str] = []
    first: Counter[str] = Counter()
    for source, file in originals:
        copy = copies.get((source.source, file))
        damage = orjson.loads(copy.found.read_bytes()) if copy else None
        if damage:
            notes.append(
                f"{shown(file)} is cut short or damaged ({damage}): what stands before the damage "
                "is used; fetch the file again"
            )
        whole = replace(
            source.stretch(copy.plain if copy else file, file),
            first=first[source.source] + 1,
            cut=bool(damage),
        )
        parts = formats.divide(whole, SHARD_BYTES)
        # The row that stands for what is lost takes a number too.
        first[source.source] += sum(part.rows for part in parts) + bool(damage)
        stretches += parts
    return stretches, notes


@dataclass(frozen=True)
class _Copy:
    """A compressed file, its plain copy, and what was found to be wrong with it (written last)."""

    packed: Path
    plain: Path

    @property
    def found(self) -> Path:
        return self.plain.with_suffix(".found")


def _unpack(copy: _Copy) -> None:
    with worker.whole(copy.plain) as out:
        damage = unpacking.unpack(copy.packed, out)
    with worker.whole(copy.found) as out:
        out.write(orjson.dumps(damage))


def _books(shards: Iterable[Shard], notes: list[str]) -> dict[str, Any]:
    """Adds up the books of all shards.

    Raises:
        DataError: A file holds no row.
    """
    sources: dict[str, dict[str, Any]] = {}
    rules: dict[str, dict[str, Any]] = {}
    files: dict[tuple[str, str], dict[str, Any]] = {}
    foreign: Counter[tuple[str, str]] = Counter()
    for shard in shards:
        book = shard.finished()
        if book is None:
            raise StepError(f"{shown(shard.base)} is not whole although it was just written")
        total = sources.setdefault(
            book["source"], {"rows": 0, "pairs": 0, "kept": 0, "reasons": Counter()}
        )
        for key in ("rows", "pairs", "kept"):
            total[key] += book[key]
        total["reasons"].update(book["reasons"])
        for name, rule in book["rules"].items():
            ours = rules.setdefault(name, {"count": 0, "examples": []})
            ours["count"] += rule["count"]
            ours["examples"] += rule["examples"][: EXAMPLES - len(ours["examples"])]
        where = book["source"], book["name"]
        file = files.setdefault(
            where, {"file": where[1], "source": where[0], "first": shard.stretch.first, "rows": 0}
        )
        file["rows"] += book["rows"]
        foreign[where] += book["reasons"].get(NOT_UTF8, 0)
    for where, file in files.items():
        if file["rows"] == 0:
            raise formats.no_row(file["file"])
        if 2 * foreign[where] > file["rows"]:
            notes.append(
                f"{file['file']} is not UTF-8 in {foreign[where]:,} of {file['rows']:,} rows; "
                "if it is GB18030, run: iconv -f GB18030 -t UTF-8 OLD > NEW"
            )
    for total in sources.values():
        total["reasons"] = dict(total["reasons"].most_common())
    return {
        "sources": sources,
        "rules": dict(sorted(rules.items())),
        "notes": notes,
        "files": list(files.values()),
    }


@contextmanager
def _disk(work: Path) -> Iterator[None]:
    """Turns errors of the disk that is written to into one line."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        cure = "free some space" if full else "see to that"
        raise StepError(
            f"cannot write to {shown(work)}: {error.strerror or error}; {cure} and run the same "
            "command again, which goes on where this one stopped"
        ) from None
