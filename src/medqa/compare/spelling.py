"""One spelling for all: what a text and a term must have in common to be the same words."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

Span = tuple[int, int]


@dataclass(frozen=True)
class Folded:
    """A text in the one spelling in which terms are looked for.

    Attributes:
        text: NFKC, case-folded, simplified Chinese, and without white space, quotation marks and
            Markdown's emphasis; a thousand is ``1000``, however it was written.
        before: For each character the white space that stood before it: ``" "``, ``"\\n"`` if it
            began a line, or nothing.
        origin: For each character its place in what was given.
    """

    text: str
    before: list[str]
    origin: list[int]

    def is_word(self, start: int, end: int) -> bool:
        """Says whether ``text[start:end]`` cuts no Latin word and no number in two."""
        text, after = self.text, self.text[end : end + 1]
        if after.isdigit() and "a" <= text[end - 1] <= "z" and not self.before[end]:
            return False  # H2O is not in H2O2
        return self._is_edge(start) and self._is_edge(end)

    def find(self, word: str, start: int = 0) -> Iterator[Span]:
        """Yields where a folded word stands, from `start` on."""
        at = self.text.find(word, start)
        while at >= 0:
            if self.is_word(at, at + len(word)):
                yield at, at + len(word)
            at = self.text.find(word, at + 1)

    def _is_edge(self, at: int) -> bool:
        text = self.text
        if not 0 < at < len(text) or self.before[at]:
            return True
        left, right = text[at - 1], text[at]
        if left.isdigit():
            return not (right.isdigit() or (right == "." and text[at + 1 : at + 2].isdigit()))
        if right.isdigit() and left == ".":
            return not text[at - 2 : at - 1].isdigit()
        return not ("a" <= left <= "z" and "a" <= right <= "z")


@dataclass(frozen=True)
class Piece:
    """A part of a word.

    Attributes:
        text: The folded characters, or the head that stands for a name.
        is_name: Which of the two.
    """

    text: str
    is_name: bool = False


@dataclass(frozen=True)
class Names:
    """Which names stand for one another.

    Attributes:
        heads: Every name, folded, to the one that stands for it, folded.
    """

    heads: Mapping[str, str]

    @classmethod
    def of(cls, synonyms: Mapping[str, Sequence[str]]) -> "Names":
        """Returns the names of ``{head: [other names]}``."""
        return cls(
            {
                fold(name).text: fold(head).text
                for head, others in synonyms.items()
                for name in (head, *others)
            }
        )

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.heads, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def pieces(self, word: Folded) -> tuple[Piece, ...]:
        """Returns a word as the names in it and what stands between them."""
        found: list[Piece] = []
        done = 0
        for match in self._pattern.finditer(word.text):
            start, end = match.span()
            if word.is_word(start, end):
                found += [Piece(word.text[done:start]), Piece(self.heads[match[0]], True)]
                done = end
        return tuple(piece for piece in (*found, Piece(word.text[done:])) if piece.text)

    def places(self, folded: Folded) -> dict[str, list[Span]]:
        """Returns where a text has a name: head to places.

        A name inside a longer one that stands for something else is not there: 左氧氟沙星 is no
        氧氟沙星.
        """
        found = [
            (start, -end, head)
            for name, head in self.heads.items()
            if name in folded.text
            for start, end in folded.find(name)
        ]
        places: dict[str, list[Span]] = {}
        longer: list[tuple[int, str]] = []  # those that began before, or here and go on longer
        for start, end, head in sorted(found):
            longer = [one for one in longer if one[0] > start]
            if not any(last >= -end and other != head for last, other in longer):
                places.setdefault(head, []).append((start, -end))
            longer.append((-end, head))
        return places


def fold(text: str) -> Folded:
    """Returns `text` in the one spelling, names as they are."""
    pieces: list[str] = []
    before: list[str] = []
    origin: list[int] = []
    space = ""
    for place, character in enumerate(text):
        # Most are Han characters, which stay as they are.
        piece = character if "一" <= character <= "龥" else _piece(character)
        if piece in (" ", "\n"):
            space = space if space == "\n" else piece
        elif piece and not (piece == "," and place and _THOUSANDS.match(text, place - 1)):
            pieces.append(piece)
            before += [space, *[""] * (len(piece) - 1)]
            origin += [place] * len(piece)
            space = ""
    return Folded(_simplified("".join(pieces)), before, origin)


def _simplified(text: str) -> str:
    found: str = _converter().convert(text)
    # It goes character by character in all of its tables; were it not so, places would be wrong.
    return found if len(found) == len(text) else text


@cache
def _converter() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")


@cache
def _piece(character: str) -> str:
    """Returns what becomes of a character; a space or a line feed for white space."""
    if character in "\n\r\v\f\u0085\u2028\u2029":
        return "\n"
    if character.isspace():
        return " "
    if character in _DROPPED or unicodedata.category(character) == "Cf":
        return ""
    return "".join(unicodedata.normalize("NFKC", character).casefold().split())


_DROPPED = frozenset("\"'“”‘’「」『』*`#")
# Only before a unit: in 110,120 the comma stands between two numbers.
_THOUSANDS = re.compile(r"\d,\d{3} ?(?=[毫克公千万元人单位次步米卡mgikul])")
