"""Where two answers differ, so that a reader sees it at once."""

from typing import NamedTuple

LEAST_COMMON = 2


class Piece(NamedTuple):
    """A run of characters of an answer.

    Attributes:
        text: The characters.
        changed: They are not in the other answer, or not here.
    """

    text: str
    changed: bool


def marked(base: str, tuned: str) -> tuple[list[Piece], list[Piece]]:
    """Returns both answers in pieces; the pieces of each add up to its text.

    Characters are aligned with the fewest insertions and deletions. A common run of fewer than
    `LEAST_COMMON` characters between changes counts as changed: two Chinese sentences about
    different things share 的 and 是, and marking around these hides what a reader looks for.
    """
    from rapidfuzz.distance import Indel

    sides: tuple[list[Piece], list[Piece]] = ([], [])
    opcodes = list(Indel.opcodes(base, tuned))
    for number, step in enumerate(opcodes):
        texts = base[step.src_start : step.src_end], tuned[step.dest_start : step.dest_end]
        inner = 0 < number < len(opcodes) - 1
        short = inner and len(texts[0]) < LEAST_COMMON
        changed = step.tag != "equal" or short
        for side, text in zip(sides, texts, strict=True):
            _append(side, text, changed=changed)
    return sides


def _append(pieces: list[Piece], text: str, *, changed: bool) -> None:
    """Adds `text`, to the last piece where that is of the same kind."""
    if not text:
        return
    if pieces and pieces[-1].changed == changed:
        pieces[-1] = Piece(pieces[-1].text + text, changed)
    else:
        pieces.append(Piece(text, changed))
