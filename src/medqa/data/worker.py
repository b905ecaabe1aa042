"""The work on one stretch of a raw file: three files, of which the last says that all are whole."""

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from uuid import uuid4

import orjson
from xxhash import xxh3_64

from medqa.data import privacy
from medqa.data.bulk import convert_all
from medqa.data.clean import Cleaner
from medqa.data.formats import Stretch, blocks, ending, json_rows, read
from medqa.data.kinds import convert
from medqa.data.links import Sieve
from medqa.data.rows import LINE_TOO_LONG, URL_ANSWER, Kind, Record, Rejection, Row, Settings
from medqa.errors import CheckFailedError

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = 3  # of each rule
EXAMPLE_CHARS = 500
BATCH_RECORDS = 20_000  # in memory before they go to the table
BATCH_BYTES = 1 << 18  # of rows that are looked at together
ROW_BYTES = 1_000  # what is taken for the size of a row of a table
BUFFER_BYTES = 1 << 18
PARTIAL = ".partial"

Lines = bytes | memoryview  # of the list of rejects
Piece = tuple[list[Row] | Lines, int]  # and how many bytes of the file it is


@dataclass(frozen=True, slots=True)
class Shard:
    """One piece of work.

    Attributes:
        stretch: What to read.
        settings: What to do with it.
        base: The three files are this path with a suffix each.
    """

    stretch: Stretch
    settings: Settings
    base: Path

    @property
    def table(self) -> Path:
        """The records, Parquet."""
        return self.base.with_suffix(".parquet")

    @property
    def rejects(self) -> Path:
        """What was refused, JSON lines."""
        return self.base.with_suffix(".jsonl")

    @property
    def books(self) -> Path:
        """The counts, JSON; it is written last."""
        return self.base.with_suffix(".json")

    def finished(self, *, verified: bool = False) -> dict[str, Any] | None:
        """Returns the books of a shard that is done, None of one that is not.

        Args:
            verified: Read the files and see whether they are what was written. They do not wait
                for the disk, so a power cut can leave them with holes.
        """
        files = [self.table, self.rejects]
        try:
            books: dict[str, Any] = orjson.loads(self.books.read_bytes())
            whole = books["sizes"] == [file.stat().st_size for file in files]
            if whole and verified:
                whole = books["digests"] == [_digest(file) for file in files]
        except (OSError, ValueError, KeyError):
            return None
        return books if whole else None


@dataclass(slots=True)
class _Books:
    rows: int = 0
    pairs: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)

    def change(self, record: Record, masked: bool) -> None:
        """Counts what cleaning changed, and keeps the first examples."""
        for rule, before, after in record.changes:
            book = self.rules.get(rule)
            if book is None:
                book = self.rules[rule] = {"count": 0, "examples": []}
            book["count"] += 1
            if len(book["examples"]) < EXAMPLES:
                texts = [before[:EXAMPLE_CHARS], after[:EXAMPLE_CHARS]]
                # What an early rule saw still held what privacy took away later.
                book["examples"].append([privacy.mask(t)[0] if masked else t for t in texts])


def prepare() -> None:
    """Imports what `work` will need, so that it is there when there is work."""
    import_module("pyarrow.parquet")


def work(shard: Shard) -> None:
    """Converts a stretch; the result depends on nothing but `shard` and the file.

    Raises:
        DataError: The file as a whole cannot be read.
        CheckFailedError: A row met a defect of ours.
        OSError: No space is left.
    """
    with whole(shard.table, False) as table, whole(shard.rejects, False) as rejects:
        written = _Hashed(table), _Hashed(rejects)
        books = _convert(shard, *written)
        sizes = [table.tell(), rejects.tell()]
    facts = {
        "name": shard.stretch.name,
        "source": shard.stretch.source,
        "rows": books.rows,
        "pairs": books.pairs,
        "kept": books.kept,
        "reasons": books.reasons,
        "rules": books.rules,
        "sizes": sizes,
        "digests": [out.digest.intdigest() for out in written],
    }
    with whole(shard.books, False) as out:
        out.write(orjson.dumps(facts))


def _convert(shard: Shard, table: "_Hashed", rejects: "_Hashed") -> _Books:
    stretch, settings = shard.stretch, shard.settings
    books, cleaner = _Books(), Cleaner(settings.rules, settings.privacy)
    sieve = None
    if stretch.format == ".jsonl" and URL_ANSWER in settings.rules and Sieve.fits(stretch.schemas):
        sieve = Sieve(stretch.source)
    with _Table(table, settings.kind) as records:
        for batch in _batches(_sifted(stretch, sieve) if sieve else _read(stretch)):
            rows = [row for piece in batch if isinstance(piece, list) for row in piece]
            found = iter(_converted(rows, shard, cleaner) if rows else [])
            for piece in batch:
                if not isinstance(piece, list):
                    rejects.write(piece)
                    continue
                outcomes = list(chain.from_iterable(islice(found, len(piece))))
                books.rows += len(piece)
                books.pairs += len(outcomes)
                kept = [outcome for outcome in outcomes if isinstance(outcome, Record)]
                records.extend(kept)
                for record in kept:
                    if record.changes:
                        books.change(record, settings.privacy)
                if len(kept) < len(outcomes):
                    for outcome in outcomes:
                        if isinstance(outcome, Rejection):
                            books.reasons[outcome.reason] += 1
                            rejects.write(_line(outcome, settings.privacy))
        books.kept = records.count
    if sieve and sieve.taken:
        books.rows += sieve.taken
        books.pairs += sieve.taken
        books.reasons[URL_ANSWER] += sieve.taken
    if books.pairs != books.kept + books.reasons.total():
        raise CheckFailedError(f"{stretch.name} lost a row; this is a defect of medqa, report it")
    return books


def _converted(batch: list[Row], shard: Shard, cleaner: Cleaner) -> list[list[Record | Rejection]]:
    """Returns the outcomes of each row.

    Raises:
        CheckFailedError: A row met a defect of ours.
    """
    stretch, settings = shard.stretch, shard.settings
    try:
        return convert_all(batch, stretch.schemas, settings, cleaner)
    except Exception as error:
        culprit, rows = error, f"rows {batch[0].number} to {batch[-1].number}"
        for row in batch:  # which of them was it?
            try:
                convert(row, stretch.schemas, settings, cleaner)
            except Exception as its_own:
                culprit, rows = its_own, f"row {row.number}"
                break
        raise CheckFailedError(
            f"{stretch.name}, {rows}: {culprit!r}; this is a defect of medqa, "
            "report it with that row"
        ) from culprit


def _batches(pieces: Iterable[Piece]) -> Iterator[list[list[Row] | Lines]]:
    """Yields rows, and lines that are finished, in their order, as many as are worth their work."""
    batch: list[list[Row] | Lines] = []
    size = 0
    for piece, length in pieces:
        batch.append(piece)
        size += length
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read(stretch: Stretch) -> Iterator[Piece]:
    """Yields the rows of a stretch."""
    for row in read(stretch):
        yield [row], len(row.text or b"") or ROW_BYTES


def _sifted(stretch: Stretch, sieve: Sieve) -> Iterator[Piece]:
    """Yields the rows of JSON lines, but lines of the list of rejects for those the sieve takes."""
    number = stretch.first
    for block, complete in blocks(stretch):
        if not complete:
            yield [Row(stretch.source, number, None, block, LINE_TOO_LONG)], len(block)
            number += 1
            continue
        # All link rows of a block before all others: code that runs long stays in the cache.
        for piece in sieve.sift(block, number):
            if isinstance(piece, tuple):
                yield json_rows(stretch.source, *piece), sum(map(len, piece[1]))
            else:
                yield piece, len(piece)
        number = sieve.number
    for row in ending(stretch):
        yield [row], ROW_BYTES


def _line(rejection: Rejection, masked: bool) -> bytes:
    """Returns the line of the list of rejects.

    Its text is masked as the records are, but for link rows: their millions are not looked into.
    """
    raw = rejection.raw
    if masked and rejection.reason != URL_ANSWER:
        raw = privacy.mask(raw)[0]
    values = {
        "id": rejection.id,
        "source": rejection.source,
        "reason": rejection.reason,
        "raw": raw,
    }
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)


class _Table:
    """A Parquet table that grows by batches; equal records give equal bytes."""

    def __init__(self, out: "_Hashed", kind: Kind) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.count = 0
        self._records: list[Record] = []
        more = [("rejected", pa.string()), ("rejected_key", pa.uint64())]
        self._schema = pa.schema(
            [
                ("source", pa.string()),
                ("row", pa.uint32()),
                ("part", pa.uint32()),
                ("question", pa.string()),
                ("answer", pa.string()),
                ("department", pa.string()),
                ("question_key", pa.uint64()),
                ("answer_key", pa.uint64()),
                ("canonical", pa.string()),
                ("rank", pa.uint64()),
                *(more if kind == "preference" else []),
            ]
        )
        # The table is read once, soon: time counts more than size, and Chinese text shrinks little.
        self._writer = pq.ParquetWriter(
            out,
            self._schema,
            compression="none",
            use_dictionary=["source", "department"],
            write_statistics=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
            self._writer.close()
        else:  # else it would close itself, and say so, when its file has long been closed
            self._writer.is_open = False

    def extend(self, records: list[Record]) -> None:
        """Adds records."""
        self._records += records
        self.count += len(records)
        if len(self._records) >= BATCH_RECORDS:
            self._flush()

    def _flush(self) -> None:
        if self._records:
            self._write(self._records)
            self._records.clear()

    def _write(self, records: list[Record]) -> None:
        import pyarrow as pa

        columns = dict(zip(Record._fields, zip(*records, strict=True), strict=True))
        try:
            arrays = [_array(columns[field.name], field.type) for field in self._schema]
        except OverflowError:  # 2 GiB of text
            middle = len(records) // 2
            self._write(records[:middle])
            self._write(records[middle:])
            return
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))


def _array(values: tuple[Any, ...], kind: "pa.DataType") -> "pa.Array":
    """Returns what `pyarrow.array` does, which first imports pandas: half a second."""
    import pyarrow as pa

    if kind != pa.string():
        code = {pa.uint32(): "I", pa.uint64(): "Q"}[kind]
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(array(code, values))])
    texts = [text.encode() for text in values]
    ends = array("i", accumulate(map(len, texts), initial=0))
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(kind, len(values), buffers)


@contextmanager
def whole(path: Path, lasting: bool = True) -> Iterator[BinaryIO]:
    """Opens a file that takes its name when it is whole and, if `lasting`, on the disk.

    The temporary name is this run's own: a worker of a killed run may be at the same shard for a
    moment yet, and both write the same bytes.
    """
    temporary = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        with temporary.open("wb", buffering=BUFFER_BYTES) as out:
            yield out
            out.flush()
            if lasting:
                os.fsync(out.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class _Hashed:
    """A file that is hashed as it is written; to read it again took a fiftieth of all the time.

    It has what `pyarrow` asks of a file.
    """

    closed = False

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.digest = xxh3_64()
        self.tell, self.flush = out.tell, out.flush

    def write(self, data: Lines) -> int:
        """Writes and hashes."""
        self.digest.update(data)
        return self._out.write(data)


def _digest(path: Path) -> int:
    """Returns the XXH3 hash of a file."""
    digest, buffer = xxh3_64(), memoryview(bytearray(BUFFER_BYTES))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.intdigest()
