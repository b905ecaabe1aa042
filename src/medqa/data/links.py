"""The short way for rows whose answer is a link: 32.7 of the 34 million rows of Huatuo-26M.

Such a row gives one line in the list of rejects and nothing else, so they are found and written
in bulk, without parsing each. The result is the same to the byte as that of `rows.convert`; any
row of which that is not certain at a glance goes the long way.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import add

from medqa.data.formats import is_utf8
from medqa.data.rows import URL_ANSWER, Keys

# Longest question, and link behind its scheme: such a row is less than `rows.SHOWN_CHARS` long, so
# that it need not be shortened.
_QUESTION_BYTES, _LINK_BYTES = 340, 110
_NAMES = ("questions", "answers")


@dataclass(frozen=True, eq=False, slots=True)
class _Shape:
    """One spelling of such rows, as JSON writers differ in blanks.

    Attributes:
        run: Matches rows at full speed. It lets line breaks and backslashes pass in a question,
            so that what it finds needs a second look.
        row: Matches one row, and no other.
        opening: What stands before the question.
        middle: Between question and link.
    """

    run: re.Pattern[str]
    row: re.Pattern[str]
    opening: str
    middle: str

    @classmethod
    def of(cls, colon: str, comma: str) -> "_Shape":
        opening = f'{{"{_NAMES[0]}"{colon}["'
        middle = f'"]{comma}"{_NAMES[1]}"{colon}["'
        run, row = (
            "".join(
                (
                    re.escape(opening),
                    rf"{question}{{0,{_QUESTION_BYTES}}}+",
                    re.escape(middle),
                    rf"https?://[!#-\[\]-~]{{1,{_LINK_BYTES}}}+",
                    re.escape(_CLOSING),
                )
            )
            for question in ('[^"]', r'[^"\\\x00-\x1f]')
        )
        return cls(re.compile(f"(?:{run})++"), re.compile(row), opening, middle)

    def inner(self, rows: str) -> list[str]:
        """Returns what stands between the first and the last quotation mark of each row's texts."""
        rows = rows[len(self.opening) : -len(_CLOSING)]
        return rows.replace(self.middle, _escaped(self.middle)).split(_CLOSING + self.opening)


def _escaped(text: str) -> str:
    return text.replace('"', '\\"')


_CLOSING = '"]}\n'
_SHAPES = (_Shape.of(": ", ", "), _Shape.of(":", ","))

# A line that is no link row, or a run of those that are: their shape and what differs in them.
_Piece = bytes | tuple[_Shape, list[str]]


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
        self._head = f'{{"id":"{source}:'
        behind = f'","source":"{source}","reason":"{URL_ANSWER}","raw":"'
        self._behind = {shape: behind + _escaped(shape.opening) for shape in _SHAPES}
        self._tail = _escaped(_CLOSING.strip()) + '"}\n'
        # The last three digits of a number and what follows it: joined faster than formatted.
        self._endings = {
            shape: [f"{number:03d}{self._behind[shape]}" for number in range(1000)]
            for shape in _SHAPES
        }

    @staticmethod
    def fits(schemas: Sequence[Keys]) -> bool:
        """Says whether rows of these schemas may be link rows as this class knows them."""
        return (schemas[0].question, schemas[0].answer) == _NAMES

    def sift(self, block: bytes, number: int) -> list[bytes | tuple[int, bytes]]:
        """Returns in order: lines of the list of rejects, and number and bytes of other lines.

        Args:
            block: Whole lines.
            number: Of the first of them.
        """
        text = block.decode("latin-1")  # one character a byte: places are the same in both
        found: list[bytes | tuple[int, bytes]] = []
        for piece in _at_a_glance(block, text) or _line_by_line(block, text):
            if isinstance(piece, bytes):
                found.append((number, piece))
                number += 1
            else:
                shape, rows = piece
                found.append("".join(self._lines(shape, rows, number)).encode("latin-1"))
                number += len(rows)
                self.taken += len(rows)
        self.number = number
        return found

    def _lines(self, shape: _Shape, rows: list[str], number: int) -> Iterator[str]:
        """Yields the rejects of rows in pieces, each of numbers with the same thousands."""
        done = 0
        while done < len(rows):
            thousands, first = divmod(number + done, 1000)
            some = rows[done : done + 1000 - first]
            if thousands:
                head = f"{self._head}{thousands}"
                endings = self._endings[shape][first : first + len(some)]
            else:
                head = self._head
                endings = [f"{n}{self._behind[shape]}" for n in range(first, first + len(some))]
            yield f"{head}{(self._tail + head).join(map(add, endings, some))}{self._tail}"
            done += len(some)


def _at_a_glance(block: bytes, text: str) -> list[_Piece] | None:
    """Returns the pieces of a block, or None where something in it needs a closer look."""
    import numpy as np
    import pyarrow as pa

    try:  # a third of the time that `bytes.decode` takes
        pa.array([block], pa.binary()).view(pa.string()).validate(full=True)
    except pa.ArrowInvalid:
        return None
    pieces: list[_Piece] = []
    place, count, size = 0, 0, len(text)
    while place < size:
        for shape in _SHAPES:
            found = shape.run.match(text, place)
            if found:
                run, end = found[0], found.end()
                if "\\" in run:
                    return None
                rows = shape.inner(run)
                pieces.append((shape, rows))
                count += len(rows)
                break
        else:
            end = text.find("\n", place) + 1 or size
            pieces.append(block[place:end])
            count += 1
        place = end
    # No control character but the line breaks, and these only where lines end.
    controls = np.count_nonzero(np.frombuffer(block, np.uint8) < ord(" "))
    return pieces if controls == count - (not block.endswith(b"\n")) else None


def _line_by_line(block: bytes, text: str) -> Iterator[_Piece]:
    place, size = 0, len(text)
    while place < size:
        end = text.find("\n", place) + 1 or size
        line = block[place:end]
        for shape in _SHAPES:
            if shape.row.fullmatch(text, place, end) and is_utf8(line):
                yield shape, shape.inner(text[place:end])
                break
        else:
            yield line
        place = end
