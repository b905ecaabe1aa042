"""Plain raw files of every format, read row by row; what cannot be parsed is a row as well.

``.jsonl``, ``.csv`` and ``.txt`` (a row is a line) are streamed, ``.parquet`` comes in batches,
``.json`` (one array) is held whole. A row's number is where an editor shows it: the line it begins
on, or its place in the array or table, from 1.

Long, as dividing a file and reading the parts must agree on what a line is, byte by byte.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BufferedReader
from itertools import count, repeat
from mmap import mmap
from pathlib import Path
from typing import Any

import orjson

from medqa.data.rows import (
    FILE_CUT_SHORT,
    HUATUO,
    LINE_TOO_LONG,
    MALFORMED_JSON,
    NOT_UTF8,
    SHOWN_CHARS,
    Keys,
    Row,
)
from medqa.errors import DataError

BLOCK_BYTES = 1 << 19  # of lines at a time: what fits a core's cache is read fastest
LONGEST_LINE = 8 << 20  # bytes; a longer line is no row of text
LINK_SIZE = 8  # how many bytes of link rows are as much work as one of others
BATCH_ROWS = 5_000
LINK = b'["http'  # what every row holds that `links` can take
SAMPLE_BYTES = 1 << 14
LINES = (".jsonl", ".txt")  # in which every line is a row
# A named tuple of a row of `zip`, in half the time that calling its class takes.
_new_row: Callable[[Iterable[Any]], Row] = partial(tuple.__new__, Row)
MARK = b"\xef\xbb\xbf"  # the byte order mark of Windows editors


@dataclass(frozen=True, slots=True)
class Stretch:
    """A plain file, or the lines between two places in it.

    Attributes:
        source: Tag of its rows.
        schemas: Names that its columns may have.
        format: A key of `READERS`.
        file: Where to read.
        name: What to call it in a message.
        end: Byte behind its last.
        start: Its first byte.
        first: Number of its first row, from 1.
        rows: How many numbers its rows take at most: lines, or rows of a table.
        cut: Whether the file breaks off at its end.
        weight: The work that it makes, as bytes of rows that are read one by one.
    """

    source: str
    schemas: tuple[Keys, ...]
    format: str
    file: Path
    name: str
    end: int
    start: int = 0
    first: int = 1
    rows: int = 0
    cut: bool = False
    weight: int = 0


def link_share(lines: bytes) -> float:
    """Returns which share of the first lines of a block are link rows by all appearances."""
    sample = lines[:SAMPLE_BYTES]
    return sample.count(LINK) / (sample.count(b"\n") or 1)


def divide(whole: Stretch, size: int) -> list[Stretch]:
    """Divides a file of JSON lines or of text into stretches of about `size` bytes.

    A file of another format is one stretch.

    A stretch of link rows, which make little work, may be `LINK_SIZE` times as long. It reads the
    file once, to count its rows.

    Raises:
        DataError: The file as a whole cannot be read.
    """
    if whole.format == ".parquet":
        from medqa.data.tables import parquet_rows

        return [replace(whole, rows=parquet_rows(whole), weight=whole.end)]
    import numpy as np

    _require_utf8(whole)
    mark = ord("," if whole.format == ".json" else "\n")  # an array has one element more
    parts: list[Stretch] = []
    start, rows, place, weight, last = 0, 0, 0, 0, b""

    def end_at(end: int) -> None:
        first = parts[-1].first + parts[-1].rows if parts else whole.first
        parts.append(replace(whole, start=start, end=end, first=first, rows=rows, weight=weight))

    # Memory of its own for all blocks: taking it anew for each costs three times the counting, and
    # so does reading to a place 16 bytes into a page, where a `bytearray` of that size lies.
    block, marks = mmap(-1, BLOCK_BYTES), np.empty(BLOCK_BYTES, bool)
    chars = np.frombuffer(block, np.uint8)
    with _opened(whole) as file:
        while length := file.readinto(block):
            found = np.equal(chars[:length], mark, out=marks[:length])
            cut = block.rfind(b"\n", 0, length) + 1
            links = link_share(block[: min(length, SAMPLE_BYTES)]) > 0.9
            weight += length // LINK_SIZE if links else length
            if whole.format in LINES and cut and weight >= size:
                before = int(np.count_nonzero(found[:cut]))
                rows += before
                end_at(place + cut)
                start, rows, weight = place + cut, -before, 0
            rows += int(np.count_nonzero(found))
            place, last = place + length, block[length - 1 : length]
    if start < place or not parts:
        rows += whole.format == ".json" or last != b"\n"
        end_at(place)
    parts[:-1] = [replace(part, cut=False) for part in parts[:-1]]
    return parts


def read(stretch: Stretch) -> Iterator[Row]:
    """Yields every row of a stretch, in order; its last says so where the file breaks off.

    Raises:
        DataError: The file as a whole cannot be read: no permission, a column that is not there,
            a JSON array or Parquet table that is damaged.
    """
    yield from READERS[stretch.format](stretch)
    yield from ending(stretch)


def ending(stretch: Stretch) -> Iterator[Row]:
    """Yields the row that stands for all that is lost behind a stretch, if that is so."""
    if stretch.cut:
        number = stretch.first + stretch.rows
        yield Row(stretch.source, number, None, stretch.name.encode(), FILE_CUT_SHORT)


def no_row(name: str) -> DataError:
    """Returns the error for a file without a row."""
    return DataError(f"{name} holds no row; fetch or write it again")


def blocks(stretch: Stretch) -> Iterator[tuple[bytes, bool]]:
    """Yields whole lines, many at a time, and True; or the beginning of a too long line and False.

    Raises:
        DataError: The file cannot be read, or is shorter than it was.
    """
    try:
        with stretch.file.open("rb") as file:
            file.seek(stretch.start)
            left = stretch.end - stretch.start
            if stretch.start == 0 and file.read(len(MARK)) == MARK:
                left -= len(MARK)
            else:
                file.seek(stretch.start)
            while left > 0:
                block = file.read(min(BLOCK_BYTES, left))
                if not block:
                    raise DataError(f"{stretch.name} changed while it was read; run this again")
                left -= len(block)
                if block.endswith(b"\n") or not left:
                    yield block, True
                    continue
                rest = file.readline(min(LONGEST_LINE, left))
                left -= len(rest)
                begun = block.rfind(b"\n") + 1
                whole = rest.endswith(b"\n") or not left
                if whole and len(block) - begun + len(rest) <= LONGEST_LINE:
                    yield block + rest, True
                    continue
                if begun:
                    yield block[:begun], True
                head = (block[begun:] + rest)[: 4 * SHOWN_CHARS]
                while left and not rest.endswith(b"\n"):
                    rest = file.readline(min(BLOCK_BYTES, left))
                    left -= len(rest)
                    if not rest:
                        raise DataError(f"{stretch.name} changed while it was read; run this again")
                yield head, False
    except OSError as error:
        raise DataError(f"cannot read {stretch.name}: {error.strerror or error}") from None


def split(block: bytes) -> list[bytes]:
    """Returns the lines of a block without their line breaks."""
    lines = block.split(b"\n")
    if not lines[-1]:
        del lines[-1]
    return lines


def json_row(source: str, number: int, line: bytes) -> Row | None:
    """Returns the row of a line, None where the line is blank."""
    if not line or line.isspace():
        return None
    try:
        return Row(source, number, orjson.loads(line), line)
    except orjson.JSONDecodeError:
        problem = MALFORMED_JSON if is_utf8(line) else NOT_UTF8
        return Row(source, number, None, line, problem)


def json_rows(source: str, first: int, lines: Sequence[bytes]) -> list[Row]:
    """Returns `json_row` of each of many lines, the first of which has the number `first`."""
    try:
        values = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        each = (json_row(source, number, line) for number, line in enumerate(lines, first))
        return [row for row in each if row is not None]
    return list(map(_new_row, zip(repeat(source), count(first), values, lines, repeat(None))))


def is_utf8(text: bytes) -> bool:
    """Says whether bytes are UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def columns(stretch: Stretch, header: Sequence[str]) -> list[str]:
    """Returns the columns of a table that are needed.

    Raises:
        DataError: They are not there.
    """
    known = len(stretch.schemas) > 1  # the YAML names no columns
    for keys in stretch.schemas:
        if all(name in header for name in keys.needed):
            there = [name for name in keys.optional if name in header]
            if known or there == keys.optional:
                return keys.needed + there
    names = ", ".join(map(repr, header)) or "none"
    (keys, *_) = stretch.schemas
    if known:
        schema = "Huatuo schema" if stretch.schemas == HUATUO else "known schema"
        asked = ["question", "answer"]
        if keys.rejected:
            asked = ["question", "chosen", "rejected"]
        elif keys.question is None:
            asked = ["text"]
        raise DataError(
            f"{stretch.name} has the columns {names}, which is no {schema}; "
            f"add to its source: columns: {{{', '.join(f'{name}: NAME' for name in asked)}}}"
        )
    from medqa.config import nearest  # loads pydantic

    asked = keys.needed + keys.optional
    absent = [f"{name!r}{nearest(name, header)}" for name in asked if name not in header]
    raise DataError(f"{stretch.name} has no column {', '.join(absent)} (found: {names})")


def _opened(stretch: Stretch) -> BufferedReader:
    try:
        return stretch.file.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {stretch.name}: {error.strerror or error}") from None


def _require_utf8(stretch: Stretch) -> None:
    """Raises DataError for UTF-16 and UTF-32, of which no line could be read."""
    with _opened(stretch) as file:
        start = file.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(start) == 4 and 0 in (start[0], start[1])):
        raise DataError(
            f"{stretch.name} must be UTF-8 and looks like UTF-16; "
            f"run: iconv -f UTF-16 -t UTF-8 OLD{stretch.format} > NEW{stretch.format}"
        )


def _json_lines(stretch: Stretch) -> Iterator[Row]:
    return _lines(stretch, json_row)


def _text_lines(stretch: Stretch) -> Iterator[Row]:
    return _lines(stretch, _text_row)


def _text_row(source: str, number: int, line: bytes) -> Row | None:
    """Returns the row of a line of text, None where the line is blank."""
    if not line or line.isspace():
        return None
    try:
        return Row(source, number, {"text": line.decode()}, line)
    except UnicodeDecodeError:
        return Row(source, number, None, line, NOT_UTF8)


def _lines(stretch: Stretch, parse: Callable[[str, int, bytes], Row | None]) -> Iterator[Row]:
    number = stretch.first
    for block, whole in blocks(stretch):
        if not whole:
            yield Row(stretch.source, number, None, block, LINE_TOO_LONG)
            number += 1
            continue
        lines = split(block)
        for place, line in enumerate(lines, number):
            row = parse(stretch.source, place, line)
            if row is not None:
                yield row
        number += len(lines)


def _json_array(stretch: Stretch) -> Iterator[Row]:
    with _opened(stretch) as file:
        text = file.read().removeprefix(MARK)
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        hint = "; is it JSON lines? then it must end in .jsonl" if text[:1] == b"{" else ""
        if not is_utf8(text):
            hint = "; run: iconv -f GB18030 -t UTF-8 OLD.json > NEW.json"
        raise DataError(f"{stretch.name} is not valid JSON: {error}{hint}") from None
    del text
    if not isinstance(values, list):
        raise DataError(
            f"{stretch.name} must be an array of objects, found one {type(values).__name__}"
        )
    for number, value in enumerate(values, stretch.first):
        yield Row(stretch.source, number, value)


def _csv(stretch: Stretch) -> Iterator[Row]:
    from medqa.data.tables import csv_rows

    return csv_rows(stretch)


def _parquet(stretch: Stretch) -> Iterator[Row]:
    from medqa.data.tables import parquet

    return parquet(stretch)


READERS = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text_lines,
}
