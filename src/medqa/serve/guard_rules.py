"""The rules of the guard: how their lines are read, and when one of them holds of a text.

A line under ``when`` is read so:

- ``a + b``    a and b, anywhere in the message;
- ``a|b``      either;
- ``a…b``      a, and soon after it b, in the same clause;
- ``<name>``   any word of that group under ``words``;
- ``体温>=39``  one of the figures of `medqa.serve.guard_figures` (``>=``, ``>``, ``<=``, ``<``).

There are no regular expressions in the YAML: it is to be read and argued with by doctors.
"""

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from medqa.config import nearest
from medqa.serve.guard_figures import MEASURES
from medqa.serve.guard_file import GeneralEntry, RuleEntry
from medqa.serve.guard_text import BREAKS, fold, one_of


class Vocabulary:
    """All words of the rules, found in one pass over a text.

    Chinese words are found wherever they stand, Latin ones and numbers whole only.
    """

    def __init__(self) -> None:
        self._words: set[str] = set()
        self._lengths: dict[str, list[int]] = {}

    def choice(self, words: Iterable[str]) -> "Choice":
        """Returns a choice of words that this vocabulary then finds."""
        chosen = frozenset(map(fold, words))
        for word in chosen - self._words:
            lengths = self._lengths.setdefault(word[0], [])
            if len(word) not in lengths:
                lengths.append(len(word))
        self._words |= chosen
        return Choice(chosen)

    def read(self, text: str) -> "Text":
        """Returns a folded text with the words that it holds."""
        found: set[str] = set()
        words, lengths = self._words, self._lengths
        for start, character in enumerate(text):
            for length in lengths.get(character, ()):
                word = text[start : start + length]
                if word in words and word not in found and is_whole(text, start, start + length):
                    found.add(word)
        return Text(text, frozenset(found))


class Text:
    """A question that rules look at.

    Attributes:
        text: Folded; what is denied or only a saying is blotted out.
        words: The words of the vocabulary that are in it.
    """

    def __init__(self, text: str, words: frozenset[str]) -> None:
        self.text = text
        self.words = words
        self._figures: dict[str, list[float]] = {}

    def figures(self, name: str) -> list[float]:
        """Returns all values of a measure."""
        if name not in self._figures:
            self._figures[name] = MEASURES[name](self.text)
        return self._figures[name]


@dataclass(frozen=True)
class Choice:
    """One of several folded words."""

    words: frozenset[str]

    def is_in(self, text: Text) -> bool:
        """Says whether one of them is there."""
        return not self.words.isdisjoint(text.words)


@dataclass(frozen=True)
class Chain:
    """Words that follow each other in one clause, at most a short gap between two."""

    steps: tuple[Choice, ...]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(_GAP.join(one_of(step.words) for step in self.steps))

    def is_in(self, text: Text) -> bool:
        """Says whether they are there, in this order."""
        for step in self.steps:
            if step.words.isdisjoint(text.words):
                return False
        return bool(self._pattern.search(text.text))


@dataclass(frozen=True)
class Comparison:
    """A figure compared with a number."""

    measure: str
    holds: Callable[[float, float], bool]
    bound: float

    def is_in(self, text: Text) -> bool:
        """Says whether one of the text's figures is on the right side of the bound."""
        return any(self.holds(value, self.bound) for value in text.figures(self.measure))


@dataclass(frozen=True)
class Part:
    """A part of a line.

    Attributes:
        words: One of these is enough,
        others: or one of these.
    """

    words: Choice
    others: tuple[Chain | Comparison, ...]

    def is_in(self, text: Text) -> bool:
        """Says whether the part is there."""
        if not self.words.words.isdisjoint(text.words):
            return True
        return any(option.is_in(text) for option in self.others)


@dataclass(frozen=True)
class Rule:
    """A rule that can be asked; the attributes are those of `RuleEntry`."""

    name: str
    when: tuple[tuple[Part, ...], ...]
    unless: tuple[tuple[Part, ...], ...] = ()
    notice: str = ""
    always: bool = False

    def holds(self, newest: Text, before: Text | None = None) -> bool:
        """Says whether it holds of a message, or of two together and not without the newest."""
        return any(
            all(_is_in(part, newest, before) for part in line)
            and (before is None or any(part.is_in(newest) for part in line))
            for line in self.when
        ) and not any(all(_is_in(part, newest, before) for part in line) for line in self.unless)


@dataclass
class Reader:
    """Reads lines of rules; collects everything that is wrong with them.

    Attributes:
        groups: The words of each group.
        vocabulary: Takes in the words of all rules.
        problems: What was wrong so far.
    """

    groups: Mapping[str, Sequence[str]]
    vocabulary: Vocabulary
    problems: list[str] = field(default_factory=list)

    def rules(self, entries: Iterable[RuleEntry | GeneralEntry], where: str) -> tuple[Rule, ...]:
        """Returns the rules of one list of the YAML."""
        found = []
        for entry in entries:
            at = f"{where} {entry.name}"
            when = tuple(self._line(line, f"{at}: when {line!r}") for line in entry.when)
            unless = tuple(self._line(line, f"{at}: unless {line!r}") for line in entry.unless)
            if isinstance(entry, RuleEntry):
                found.append(Rule(entry.name, when, unless, entry.notice, entry.always))
            else:
                found.append(Rule(entry.name, when, unless))
        return tuple(found)

    def _line(self, line: str, where: str) -> tuple[Part, ...]:
        return tuple(self._part(part, where) for part in _PLUS.split(f" {line.strip()} "))

    def _part(self, part: str, where: str) -> Part:
        options = tuple(self._options(part, where))
        words = frozenset().union(*(one.words for one in options if isinstance(one, Choice)))
        return Part(Choice(words), tuple(one for one in options if not isinstance(one, Choice)))

    def _options(self, part: str, where: str) -> Iterator[Choice | Chain | Comparison]:
        for option in part.split("|"):
            if not option.strip():
                self.problems.append(f"{where}: nothing beside a '+' or '|'; expected words")
            elif compared := _COMPARISON.match(option):
                name, sign, bound = compared.groups()
                if name in MEASURES:
                    yield Comparison(name, _SIGNS[sign], float(bound))
                else:
                    known = f"(known: {', '.join(MEASURES)}){nearest(name, MEASURES)}"
                    self.problems.append(f"{where}: no figure is called {name!r} {known}")
            else:
                words = [self._step(step, where) for step in option.split("…")]
                steps = tuple(self.vocabulary.choice(step) for step in words if step)
                yield steps[0] if len(steps) == 1 else Chain(steps)

    def _step(self, step: str, where: str) -> list[str]:
        """Returns the words of a step; ``大<pain>`` puts 大 before each word of the group."""
        words = [""]
        for number, piece in enumerate(_GROUP.split(step.strip())):
            if number % 2 == 0:
                words = [word + piece for word in words]
            elif piece in self.groups:
                words = [word + one for word in words for one in self.groups[piece]]
            else:
                known = nearest(piece, self.groups)
                self.problems.append(f"{where}: no group under words is called {piece!r}{known}")
        if re.search("[<>]", "".join(words)):
            self.problems.append(f"{where}: a '<' or '>' that is neither <name> nor a comparison")
        if "" in map(fold, words):
            self.problems.append(f"{where}: nothing beside a '…'; expected words")
            return []
        return words


def is_whole(text: str, start: int, end: int) -> bool:
    """Says whether ``text[start:end]`` cuts no Latin word and no number in two."""
    return not (
        (start and _LATIN.match(text[start]) and _LATIN.match(text[start - 1]))
        or (end < len(text) and _LATIN.match(text[end - 1]) and _LATIN.match(text[end]))
    )


_LATIN = re.compile(r"[a-z0-9]")
_GAP = rf"(?:[^{BREAKS}]{{0,8}}?|[a-z0-9 '-]{{0,30}}?)"
_PLUS = re.compile(r"\s\+\s")
_GROUP = re.compile(r"<([a-z0-9_]+)>")
_COMPARISON = re.compile(r"\s*([^<>=\s…]+)\s*(>=|<=|>|<)\s*(\d+(?:\.\d+)?)\s*$")
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}


def _is_in(part: Part, newest: Text, before: Text | None) -> bool:
    return part.is_in(newest) or (before is not None and part.is_in(before))
