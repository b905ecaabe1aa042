"""What a text says of the words at a place: asserts, puts off, forbids, blames.

`medqa.compare.negation` makes it; the rules stand in `medqa.compare.claims`.
"""

from bisect import bisect_right
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise

from medqa.compare import lexicon
from medqa.compare.spelling import Span


@dataclass(frozen=True)
class Mark:
    """A word that changes how what follows it is meant.

    Attributes:
        kind: ``ban`` (不能) and ``none`` (没有, of shorter reach) negate; ``that`` (不代表)
            negates a whole sentence, other negations in it included; ``open`` (是否) leaves
            open; ``if`` (如果) supposes; ``later`` (必要时) puts off.
        start: Where it begins.
        end: Where it ends.
        run: The same number for words that follow one another directly.
    """

    kind: str
    start: int
    end: int
    run: int


@dataclass(frozen=True)
class Clause:
    """What stands between two breaks.

    Attributes:
        start: Where it begins.
        end: Where it ends, the break not included.
        asks: It is a question.
        turned: It is a rhetorical one, so it means the opposite.
    """

    start: int
    end: int
    asks: bool
    turned: bool


@dataclass
class Reading:
    """What is in force where in a text.

    Attributes:
        text: The folded text.
        clauses: Its clauses in order.
        places: Where what is in force changes.
        states: What is in force from there on.
        asked: Every two characters in a row of the question, but for common ones.
    """

    text: str
    clauses: list[Clause] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    states: list[tuple[Mark, ...]] = field(default_factory=list)
    asked: Set[str] = frozenset()

    def clause(self, at: int) -> tuple[Clause, Clause | None]:
        """Returns the clause at a place, and the next one."""
        number = max(0, bisect_right(self.clauses, at, key=lambda c: c.start) - 1)
        return self.clauses[number], next(iter(self.clauses[number + 1 : number + 2]), None)

    def asserts(self, parts: Sequence[Span]) -> bool:
        """Says whether the text asserts words.

        Args:
            parts: Where they stand, in order; a negation in one of the parts is meant to be there.
        """
        clause, following = self.clause(parts[0][0])
        end = parts[-1][1]
        if clause.asks and not (following and lexicon.YES.match(self.text, following.start)):
            return False
        if lexicon.UNTRUE.match(self.text, end):
            return False
        if following and lexicon.THIS_IS_UNTRUE.match(self.text, following.start):
            return False
        return all(self._is_negated(span, parts) == clause.turned for span in parts)

    def defers(self, parts: Sequence[Span]) -> bool:
        """Says whether the words wait for something that has not happened yet."""
        return any(m.kind == "later" for m in self._marks(parts[0][0]))

    def warns(self, parts: Sequence[Span]) -> bool:
        """Says whether the words are only supposed, or called forbidden or harmful."""
        start, end = parts[0][0], parts[-1][1]
        if all(any(m.kind == "if" for m in self._marks(at)) for at in (start, end - 1)):
            return True
        if lexicon.FORBIDDEN.match(self.text, end):
            return True
        if lexicon.PERMITS.match(self.text, start):
            return False
        if lexicon.HARMFUL.match(self.text, end):
            return True
        clause, following = self.clause(start)
        if following and lexicon.THIS_IS_HARMFUL.match(self.text, following.start):
            return True
        return self._is_of_another(clause, (start, end))

    def _is_of_another(self, clause: Clause, span: Span) -> bool:
        """Says whether the clause says it of something that was not asked about."""
        after = lexicon.ANOTHER_AFTER.match(self.text, span[1])
        if after and not self.repeats(after[1]):
            return True
        before = lexicon.ANOTHER_BEFORE.search(self.text, clause.start, span[0])
        if not before:
            return False
        return not self.repeats(self.text[clause.start : before.start()])

    def repeats(self, words: str) -> bool:
        """Says whether two characters in a row of `words` stand in the question."""
        return any("".join(pair) in self.asked for pair in pairwise(words))

    def _marks(self, at: int) -> tuple[Mark, ...]:
        found = bisect_right(self.places, at) - 1
        return tuple(m for m in self.states[found] if m.start < at) if found >= 0 else ()

    def _is_negated(self, span: Span, parts: Sequence[Span]) -> bool:
        start, end = span
        marks = tuple(
            m
            for m in self._marks(start)
            if m.kind not in ("if", "later") and not any(p[0] <= m.start < p[1] for p in parts)
        )
        if holds_negation(self.text[start:end]):
            # What negates it is a negation of the whole, or stands directly before it.
            beside = {m.run for m in marks if m.end == start}
            marks = tuple(
                m for m in marks if m.kind in _WIDE or (m.run in beside and m.end <= start)
            )
        elif (frame := lexicon.FRAME.match(self.text, start)) and end <= frame.end():
            marks = ()
        if any(m.kind == "open" for m in marks):
            return True
        wide = narrow = False
        for run in {m.run for m in marks}:
            members = [m.kind for m in marks if m.run == run]
            odd = len(members) % 2 == 1  # 不能不: two negations side by side are none
            if "that" in members:
                wide ^= odd
            else:
                narrow |= odd
        return narrow ^ wide


def holds_negation(word: str) -> bool:
    """Says whether a negation is part of a folded word: 不建议, 孕妇禁用."""
    return any(found.lastgroup in ("that", "ban", "none") for found in lexicon.SIGNS.finditer(word))


_WIDE = ("that", "open")
