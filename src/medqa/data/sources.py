"""Raw files of any supported format, read row by row; what cannot be parsed is a row as well.

``.jsonl`` and ``.csv`` are streamed, ``.parquet`` comes in batches, ``.json`` (one array) is held
whole. A row's number is where an editor shows it: the line it begins on, or its place in the array
or table, from 1.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from medqa.config import Strict, nearest
from medqa.data.rows import HUATUO, MALFORMED_CSV, MALFORMED_JSON, Keys, Row
from medqa.errors import DataError, MissingInputError
from medqa.paths import resolve, shown

SHOWN_CHARS = 500  # of a row's text in rejects.jsonl
BATCH_ROWS = 10_000


def _known_format(path: str) -> str:
    if Path(path).suffix not in _READERS:
        raise PydanticCustomError("format", "must end in {known}", {"known": ", ".join(_READERS)})
    return path


class Columns(Strict):
    """Names of the columns of a file that is in no Huatuo schema."""

    question: str
    answer: str
    department: str | None = None


class Source(Strict):
    """One raw file.

    Attributes:
        path: The file, relative to the project root.
        source: Tag that every row of it keeps.
        columns: Needed only where the file is in no Huatuo schema.
    """

    path: Annotated[str, AfterValidator(_known_format)]
    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    columns: Columns | None = None

    @property
    def file(self) -> Path:
        """The file as an absolute path."""
        return resolve(self.path)

    @property
    def schemas(self) -> tuple[Keys, ...]:
        """The key names that its rows may have."""
        return (Keys(**self.columns.model_dump()),) if self.columns else HUATUO


def require(sources: Iterable[Source]) -> None:
    """Checks that every file is there and not empty, before any work.

    Raises:
        MissingInputError: Files are absent; names all of them.
        DataError: A file is empty, or no file.
    """
    files = [source.file for source in sources]
    absent = [file for file in files if not file.exists()]
    if absent:
        raw = any(resolve("data/raw") in file.parents for file in absent)
        raise MissingInputError(
            f"no file {', '.join(shown(file) for file in absent)}; "
            + ("run: make data" if raw else "check the path, which starts at the project root")
        )
    for file in files:
        if not file.is_file():
            raise DataError(f"{shown(file)} must be a file, found something else (a folder?)")
        if not file.stat().st_size:
            raise DataError(f"{shown(file)} is empty; fetch or write it again")


def read(source: Source) -> Iterator[Row]:
    """Yields every row of a file, in order.

    Raises:
        DataError: The file as a whole cannot be read: no permission, a column that is not there,
            a JSON array or Parquet table that is damaged, or no row at all.
    """
    found = False
    try:
        for row in _READERS[source.file.suffix](source):
            found = True
            yield row
    except OSError as error:
        raise DataError(f"cannot read {shown(source.file)}: {error.strerror or error}") from None
    if not found:
        raise DataError(f"{shown(source.file)} holds no row; fetch or write it again")


def _json_lines(source: Source) -> Iterator[Row]:
    with source.file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # the byte order mark of Windows editors
            if line.isspace():
                continue
            value, problem = None, None
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError:
                problem = MALFORMED_JSON
            yield Row(source.source, number, value, _shorten(line), problem, len(line))


def _json_array(source: Source) -> Iterator[Row]:
    text = source.file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        hint = "; is it JSON lines? then it must end in .jsonl" if text[:1] == b"{" else ""
        raise DataError(f"{shown(source.file)} is not valid JSON: {error}{hint}") from None
    if not isinstance(values, list):
        raise DataError(
            f"{shown(source.file)} must be an array of objects, found one {type(values).__name__}"
        )
    size = len(text) // max(len(values), 1)
    for number, value in enumerate(values, start=1):
        yield Row(source.source, number, value, _shorten(orjson.dumps(value)), None, size)


def _csv(source: Source) -> Iterator[Row]:
    """Reads RFC 4180 strictly; a row that breaks it costs its first line and no other.

    The standard reader goes on to the next quotation mark, however far that is. So the lines of a
    row that fails are kept and all but the first are read again.
    """
    with source.file.open("rb") as file:
        lines = _Lines(file)
        header = next(_csv_rows(lines), ([], None))[0]
        if any("\udc80" <= c <= "\udcff" for name in header for c in name):
            raise DataError(
                f"{shown(source.file)} must be UTF-8; "
                "run: iconv -f GB18030 -t UTF-8 OLD.csv > NEW.csv"
            )
        keys = _columns(source, header)
        lines.take()
        for values, problem in _csv_rows(lines):
            number, text = lines.take()
            if not values and not problem:  # an empty line
                continue
            if problem is None and len(values) != len(header):
                problem = MALFORMED_CSV
            row = dict(zip(header, values, strict=False)) if problem is None else None
            if row and any(not _encodable(row[key]) for key in keys):
                problem = MALFORMED_CSV
            yield Row(source.source, number, row, _shorten(text), problem, len(text))


class _Lines:
    """The lines of a file as text, remembering those of the row that is being read."""

    def __init__(self, file: Iterable[bytes]) -> None:
        self._file = iter(file)
        self._again: list[bytes] = []
        self._row: list[bytes] = []
        self._number = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._file)
        first = self._number == 1 and not self._row
        self._row.append(line)
        return line.decode("utf-8-sig" if first else "utf-8", errors="surrogateescape")

    def keep_first(self) -> None:
        """Makes the row that was read its first line; the others come again."""
        self._again += reversed(self._row[1:])
        del self._row[1:]

    def take(self) -> tuple[int, bytes]:
        """Returns the number of the row's first line and its bytes, and begins a new row."""
        number, text = self._number, b"".join(self._row)
        self._number += len(self._row)
        self._row.clear()
        return number, text


def _csv_rows(lines: _Lines) -> Iterator[tuple[list[str], str | None]]:
    """Yields the values of each row, or none and the problem."""
    reader = csv.reader(lines, strict=True)
    while True:
        try:
            yield next(reader), None
        except StopIteration:
            return
        except csv.Error:
            lines.keep_first()
            yield [], MALFORMED_CSV


def _parquet(source: Source) -> Iterator[Row]:
    import polars  # a quarter of a second, and most runs read JSON lines

    try:
        table = polars.scan_parquet(source.file, glob=False)
        names = _columns(source, table.collect_schema().names())
        table = table.select(names)
        count = table.select(polars.len()).collect().item()
        size = source.file.stat().st_size // max(count, 1)
        number = 0
        for batch in table.collect_batches(chunk_size=BATCH_ROWS):  # keeps the order
            for value in batch.iter_rows(named=True):
                number += 1
                text = _shorten(orjson.dumps(value, default=str))
                yield Row(source.source, number, value, text, None, size)
    except polars.exceptions.PolarsError as error:
        raise DataError(f"{shown(source.file)} is no readable Parquet file: {error}") from None


def _columns(source: Source, header: Sequence[str]) -> list[str]:
    """Returns the columns of a table that are needed; DataError when they are not there."""
    for keys in source.schemas:
        if keys.question in header and keys.answer in header:
            found = [keys.question, keys.answer]
            if keys.department is None or (not source.columns and keys.department not in header):
                return found
            if keys.department in header:
                return [*found, keys.department]
    columns = ", ".join(map(repr, header)) or "none"
    if source.columns is None:
        raise DataError(
            f"{shown(source.file)} has the columns {columns}, which is no Huatuo schema; "
            f"add to its source: columns: {{question: NAME, answer: NAME}}"
        )
    asked = [name for name in source.columns.model_dump().values() if name is not None]
    absent = [f"{name!r}{nearest(name, header)}" for name in asked if name not in header]
    raise DataError(f"{shown(source.file)} has no column {', '.join(absent)} (found: {columns})")


def _encodable(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _shorten(text: bytes) -> str:
    # A character takes at most four bytes; slicing first keeps a huge line cheap.
    return text[: 4 * SHOWN_CHARS].decode("utf-8", errors="replace").strip()[:SHOWN_CHARS]


_READERS = {".jsonl": _json_lines, ".json": _json_array, ".csv": _csv, ".parquet": _parquet}
