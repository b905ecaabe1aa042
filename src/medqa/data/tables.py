"""Raw files with columns: CSV and Parquet."""

import csv
from collections.abc import Iterator
from typing import Any

from medqa.data.formats import BATCH_ROWS, Stretch, blocks, columns
from medqa.data.rows import LINE_TOO_LONG, MALFORMED_CSV, NOT_UTF8, Row
from medqa.errors import DataError


def csv_rows(stretch: Stretch) -> Iterator[Row]:
    """Reads RFC 4180 strictly; a row that breaks it costs its first line and no other.

    The standard reader goes on to the next quotation mark, however far that is. So the lines of a
    row that fails are kept and all but the first are read again.
    """
    lines = _Lines(stretch)
    rows = _values(lines)
    header = next(rows, ([], None))[0]
    if any(not _encodable(name) for name in header):
        raise DataError(
            f"{stretch.name} must be UTF-8; run: iconv -f GB18030 -t UTF-8 OLD.csv > NEW.csv"
        )
    needed = columns(stretch, header)
    lines.take()
    for values, problem in rows:
        number, text = lines.take()
        if not values and not problem:  # an empty line
            continue
        if problem is None and len(values) != len(header):
            problem = MALFORMED_CSV
        row = dict(zip(header, values, strict=True)) if problem is None else None
        if row and not all(_encodable(row[key]) for key in needed):
            problem = NOT_UTF8
        yield Row(stretch.source, number, row, text, problem)


def parquet_rows(stretch: Stretch) -> int:
    """Returns the number of rows of a Parquet table."""
    return int(_table(stretch).metadata.num_rows)


def parquet(stretch: Stretch) -> Iterator[Row]:
    """Reads a Parquet table batch by batch."""
    import pyarrow as pa

    table = _table(stretch)
    needed = columns(stretch, table.schema_arrow.names)
    number = stretch.first
    try:
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=needed):
            try:
                values = batch.to_pylist()
            except UnicodeDecodeError:  # Parquet does not check its strings
                values = [_one(batch.slice(at, 1)) for at in range(len(batch))]
            for place, value in enumerate(values, number):
                problem = NOT_UTF8 if value is None else None
                yield Row(stretch.source, place, value, None if value else b"", problem)
            number += len(values)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(stretch, error) from None


class _TooLong(Exception):
    """The line that was asked for is too long."""


class _Lines:
    """The lines of a file as text, remembering those of the row that is being read."""

    def __init__(self, stretch: Stretch) -> None:
        self._file = _lines(stretch)
        self._again: list[tuple[bytes, bool]] = []
        self._row: list[tuple[bytes, bool]] = []
        self._number = stretch.first

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, whole = self._again.pop() if self._again else next(self._file)
        self._row.append((line, whole))
        if not whole:
            raise _TooLong
        return line.decode("utf-8", errors="surrogateescape")

    def keep_first(self) -> bool:
        """Makes the row that was read its first line; the others come again.

        Returns:
            Whether that line is whole.
        """
        self._again += reversed(self._row[1:])
        del self._row[1:]
        return self._row[0][1]

    def take(self) -> tuple[int, bytes]:
        """Returns the number of the row's first line and its bytes, and begins a new row."""
        number, text = self._number, b"".join(line for line, _ in self._row)
        self._number += len(self._row)
        self._row.clear()
        return number, text


def _lines(stretch: Stretch) -> Iterator[tuple[bytes, bool]]:
    for block, whole in blocks(stretch):
        if whole:
            lines = block.split(b"\n")
            last = lines.pop()
            yield from ((line + b"\n", True) for line in lines)
            if last:
                yield last, True
        else:
            yield block, False


def _values(lines: _Lines) -> Iterator[tuple[list[str], str | None]]:
    """Yields the values of each row, or none and the problem."""
    reader = csv.reader(lines, strict=True)
    while True:
        try:
            yield next(reader), None
        except StopIteration:
            return
        except (csv.Error, _TooLong):
            yield [], MALFORMED_CSV if lines.keep_first() else LINE_TOO_LONG


def _encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _table(stretch: Stretch) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(stretch.file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(stretch, error) from None


def _one(batch: Any) -> dict[str, Any] | None:
    """Returns the only row of a batch, None where it is not UTF-8."""
    try:
        (row,) = batch.to_pylist()
        return dict(row)
    except UnicodeDecodeError:
        return None


def _unreadable(stretch: Stretch, error: Exception) -> DataError:
    return DataError(f"{stretch.name} is no readable Parquet file: {error}; fetch it again")
