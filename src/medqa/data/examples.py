"""What a cleaning rule changed, cut down to the place and safe to show.

Whatever is shown is masked once more: the text before a rule is the raw one, which privacy has
not seen yet.
"""

import html
import re
import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import NamedTuple

from rapidfuzz.distance import Postfix, Prefix

from medqa.data import privacy

CONTEXT = 18  # characters shown on each side of a change
LONGEST = 60  # of a change itself
COMPARED = 800  # characters from the first change on; difflib takes quadratic time
WHOLE = 450  # texts as long as this may have been cut
SHOWN_CHARS = 120  # of a question or another text without a change

# What is left after masking and still looks like a number of a person. No dose has seven digits.
_LONG_NUMBER = re.compile(r"\d(?:[\s\-–—－.]?\d){6,}")
_HIDDEN = "▮▮▮"
_SPACES = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\u3000": "□"}


class Piece(NamedTuple):
    """A stretch of text and whether the rule changed it."""

    text: str
    changed: bool


class Example(NamedTuple):
    """A text before and after a rule, as pieces."""

    before: list[Piece]
    after: list[Piece]


def safe(text: str) -> str:
    """Returns `text` without personal data, and without numbers that might be some.

    Data hidden behind HTML entities or full-width characters cannot be masked in its place, so of
    such a text nothing is shown.
    """
    masked, _ = privacy.mask(text)
    masked = _LONG_NUMBER.sub(_HIDDEN, masked)
    plain = unicodedata.normalize("NFKC", html.unescape(masked))
    if privacy.mask(plain)[1] or _LONG_NUMBER.search(plain):
        return _HIDDEN
    return masked


def shown(text: str, longest: int = SHOWN_CHARS) -> str:
    """Returns `text` safe, in one line, cut to `longest` characters."""
    line = " ".join(safe(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def compared(before: str, after: str) -> Example | None:
    """Returns the changed places with a little around them; None where nothing may be shown.

    Long texts may have been cut by whoever kept them, and the ends of two cut texts differ without
    a change: what differs at their very end is not shown.
    """
    old, new = safe(before), safe(after)
    if old == new or _HIDDEN in (old, new):
        return None
    cut = min(len(before), len(after)) >= WHOLE
    start = Prefix.similarity(old, new)
    end = 0 if cut else Postfix.similarity(old[start:], new[start:])
    if len(new) == start + end:
        start, end = _slid(old, start, end)
    first = Piece(_around(old[:start], first=True), False)
    last = Piece(_around(old[len(old) - end :], last=True), False)
    left, right = [first], [first]
    old, new = old[start : len(old) - end], new[start : len(new) - end]
    operations = SequenceMatcher(None, old[:COMPARED], new[:COMPARED], autojunk=False).get_opcodes()
    if cut and operations and operations[-1][0] != "equal":
        del operations[-1]
    for kind, old_from, old_to, new_from, new_to in operations:
        if kind == "equal":
            behind = cut and old_to == operations[-1][2]
            same = Piece(_around(old[old_from:old_to], last=behind), False)
            left.append(same)
            right.append(same)
        else:
            left.append(Piece(_change(old[old_from:old_to]), True))
            right.append(Piece(_change(new[new_from:new_to]), True))
    if not any(piece.changed for piece in left):
        return None
    return Example(_first([*left, last]), _first([*right, last]))


def masked(after: str, kind: str) -> list[Piece] | None:
    """Returns the first placeholder of `kind` in `after` and a little around it; None if none."""
    placeholder = privacy.PLACEHOLDERS[kind]
    left, found, right = safe(after).partition(placeholder)
    if not found:
        return None
    return [
        Piece(_around(left, first=True), False),
        Piece(placeholder, True),
        Piece(_around(right, last=True), False),
    ]


def _slid(text: str, start: int, end: int) -> tuple[int, int]:
    """Moves a cut to the left where it then ends with punctuation: 你[好：你]是, [你好：]你是."""
    moved = 0
    while moved <= start:
        if not text[len(text) - end - moved - 1].isalnum():
            return start - moved, end + moved
        if moved == start or text[start - moved - 1] != text[len(text) - end - moved - 1]:
            break
        moved += 1
    return start, end


def _around(text: str, *, first: bool = False, last: bool = False) -> str:
    """Shortens what did not change, keeping what stands next to a change."""
    if first:
        return text if len(text) <= CONTEXT else f"…{text[-CONTEXT:]}"
    if last:
        return text if len(text) <= CONTEXT else f"{text[:CONTEXT]}…"
    return text if len(text) <= 2 * CONTEXT else f"{text[:CONTEXT]}…{text[-CONTEXT:]}"


def _change(text: str) -> str:
    """Makes what cannot be seen visible, and a long change short."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
    return "".join(_SPACES.get(c) or (c if c.isprintable() else f"⟨U+{ord(c):04X}⟩") for c in text)


def _first(pieces: Iterable[Piece], changes: int = 3) -> list[Piece]:
    """Keeps the pieces up to the third change and what follows it."""
    kept: list[Piece] = []
    seen = 0
    for piece in pieces:
        seen += piece.changed
        if seen > changes:
            return [*kept, Piece("…", False)]
        if piece.text:
            kept.append(piece)
    return kept
