"""The short way for rows whose answer is a link: 32.7 of the 34 million rows of Huatuo-26M.

Such a row gives one line in the list of rejects and nothing else, so they are found and written
in bulk, without parsing each. The result is the same to the byte as that of `rows.convert`; any
row of which that is not certain goes the long way.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medqa.data.formats import is_utf8, link_share, split
from medqa.data.rows import URL_ANSWER, Keys

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Longest question, and link behind its scheme: such a row is less than `rows.SHOWN_CHARS` long, so
# that it need not be shortened.
_QUESTION_BYTES, _LINK_BYTES = 340, 110
_NAMES = ("questions", "answers")
_QUOTES = 8  # of a link row: three before its question, four behind it, one behind the link
_CLOSING = b'"]}\n'
_WORTH_A_LOOK = 0.25  # share of link rows from which looking for them saves more than it costs
_SMALLEST = 1 << 12  # bytes; fewer are looked at line by line rather than divided


@dataclass(frozen=True, eq=False, slots=True)
class _Shape:
    """One spelling of such rows, as JSON writers differ in blanks.

    Attributes:
        opening: What stands before the question.
        middle: Between question and link.
        row: Matches one row, and no other.
    """

    opening: bytes
    middle: bytes
    row: re.Pattern[bytes]

    @classmethod
    def of(cls, colon: str, comma: str) -> "_Shape":
        opening = f'{{"{_NAMES[0]}"{colon}["'.encode()
        middle = f'"]{comma}"{_NAMES[1]}"{colon}["'.encode()
        row = b'%b[^"\\\\\x00-\x1f]{0,%d}+%bhttps?://[!#-\\[\\]-~]{1,%d}+%b' % (
            re.escape(opening),
            _QUESTION_BYTES,
            re.escape(middle),
            _LINK_BYTES,
            re.escape(_CLOSING),
        )
        return cls(opening, middle, re.compile(row))

    def beginnings(self, block: bytes) -> "NDArray[np.intp] | None":
        """Returns where each line of `block` begins if each is matched by `row`, else None.

        The same as `row` line by line, but by the places of the quotation marks: there are eight
        in a line, and what stands at each of them is looked at in all lines at once.
        """
        import numpy as np
        import pyarrow as pa

        if not block.startswith(self.opening) or b"\\" in block or b"\x7f" in block:
            return None
        chars = np.frombuffer(block, np.uint8)
        found = np.flatnonzero(chars == ord('"'))
        if len(found) % _QUOTES or not block.endswith(_CLOSING):
            return None
        marks = found.reshape(-1, _QUOTES)
        before, behind, last = marks[:, 3], marks[:, 6], marks[:, 7]
        starts = np.concatenate([[0], last[:-1] + len(_CLOSING)])

        def stands(text: bytes, places: "NDArray[np.intp]") -> bool:
            if len(places) and places[-1] > len(block) - len(text):
                return False
            # Every place as a string of that length.
            texts = np.ndarray(len(block) - len(text) + 1, f"S{len(text)}", block, strides=(1,))
            # A third of the time that comparing string by string takes.
            return bool(texts[places].tobytes() == text * len(places))

        # No control character but the line breaks, which all stand where a line is to end.
        if np.count_nonzero(chars < ord(" ")) != len(marks):
            return None
        if not stands(_CLOSING + self.opening, last[:-1]) or last[-1] != len(block) - len(_CLOSING):
            return None
        if stands(self.middle + b"https://", before):
            scheme = behind + len('"https')
        elif stands(self.middle + b"http", before):
            scheme = behind + len('"http')
            scheme += chars[scheme] == ord("s")
            if not stands(b"://", scheme):
                return None
        else:
            return None
        question, link = before - starts - len(self.opening), last - scheme - len("://")
        if question.max() > _QUESTION_BYTES or link.min() < 1 or link.max() > _LINK_BYTES:
            return None
        # From 0x80 on a byte is negative, so this finds all that is no printable ASCII.
        stretches = marks[:, 6:].reshape(-1)
        if np.minimum.reduceat(chars.view(np.int8), stretches)[::2].min() <= ord(" "):
            return None
        ends = pa.py_buffer(np.array([0, len(block)], np.int32))
        text = pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(block)])
        try:  # a third of the time that `bytes.decode` takes
            text.validate(full=True)
        except pa.ArrowInvalid:
            return None
        return starts


_SHAPES = (_Shape.of(": ", ", "), _Shape.of(":", ","))

# Link rows and where each begins; or lines of any kind, and None.
_Stretch = tuple[bytes, "NDArray[np.intp] | None"]


class Sieve:
    """Takes the link rows out of blocks of JSON lines.

    Args:
        source: Tag of the rows.

    Attributes:
        taken: Rows that it took so far.
        number: Of the line behind the last block.
    """

    def __init__(self, source: str) -> None:
        self.taken = 0
        self.number = 0
        # A line of the list of rejects but for the number and the row.
        self._head = f'{{"id":"{source}:'.encode()
        self._behind = f'","source":"{source}","reason":"{URL_ANSWER}","raw":"'.encode()
        self._tail = b'"}\n'

    @staticmethod
    def fits(schemas: Sequence[Keys]) -> bool:
        """Says whether rows of these schemas may be link rows as this class knows them."""
        return (schemas[0].question, schemas[0].answer) == _NAMES

    def sift(self, block: bytes, number: int) -> list[bytes | memoryview | tuple[int, list[bytes]]]:
        """Returns in order: lines of the list of rejects, and other lines with their first number.

        Args:
            block: Whole lines.
            number: Of the first of them.
        """
        found: list[bytes | memoryview | tuple[int, list[bytes]]] = []
        for lines, starts in _stretches(block):
            if starts is not None:
                found += self._lines(lines, starts, number)
                number += len(starts)
                self.taken += len(starts)
                continue
            others = split(lines)
            if link_share(lines) < _WORTH_A_LOOK:
                found.append((number, others))
                number += len(others)
                continue
            for line in others:
                if _is_link_row(line):
                    found.append(self._line(line, number))
                    self.taken += 1
                else:
                    found.append((number, [line]))
                number += 1
        self.number = number
        return found

    def _line(self, row: bytes, number: int) -> bytes:
        """Returns the reject of one row."""
        text = row.replace(b'"', b'\\"')
        return b"%b%d%b%b%b" % (self._head, number, self._behind, text, self._tail)

    def _lines(
        self, rows: bytes, starts: "NDArray[np.intp]", number: int
    ) -> Iterator[memoryview | bytes]:
        """Yields the rejects of link rows, whose numbers start with `number`.

        All are written with the first number, and then the digits in which theirs differ.
        """
        import numpy as np

        first, last = b"%d" % number, b"%d" % (number + len(starts) - 1)
        if len(first) < len(last):
            few = 10 ** len(first) - number
            yield from self._lines(rows[: starts[few]], starts[:few], number)
            yield from self._lines(rows[starts[few] :], starts[few:] - starts[few], number + few)
            return
        between = self._tail + self._head + first + self._behind
        text = (bytearray(b"\n") + rows).replace(b'"', b'\\"').replace(b"\n", between)
        chars = np.frombuffer(text, np.uint8)
        longer = np.arange(len(starts)) * (_QUOTES + len(between) - 1)
        places = starts + longer + (len(self._tail) + len(self._head))
        numbers = np.arange(number, number + len(starts), dtype=np.uint32)
        digit = len(first) - 1
        while first[: digit + 1] != last[: digit + 1]:
            tens = numbers // np.uint32(10)
            chars[places + digit] = numbers - np.uint32(10) * tens + np.uint32(ord("0"))
            numbers, digit = tens, digit - 1
        yield memoryview(text)[len(self._tail) : len(text) - len(between) + len(self._tail)]


def _stretches(block: bytes) -> Iterator[_Stretch]:
    """Divides whole lines where they cannot be taken in one, until little is left to doubt."""
    if link_share(block) >= _WORTH_A_LOOK:
        for shape in _SHAPES:
            starts = shape.beginnings(block)
            if starts is not None:
                yield block, starts
                return
        cut = block.find(b"\n", len(block) // 2) + 1
        if len(block) > _SMALLEST and 0 < cut < len(block):
            yield from _stretches(block[:cut])
            yield from _stretches(block[cut:])
            return
    yield block, None


def _is_link_row(line: bytes) -> bool:
    return any(shape.row.fullmatch(line + b"\n") for shape in _SHAPES) and is_utf8(line)
