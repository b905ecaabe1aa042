"""What a text must hold for a rule to find anything in it, sought in thousands of texts at once.

Most texts are clean, and most of the time that a rule takes goes into finding nothing. So each
rule names its triggers where it is defined, by `woken_by`: sequences of one to four characters of
which at least one stands in any text that the rule changes or objects to. They are written as
``[您你]好`` or ``急[^性]``: characters, and sets of them. `Triggers` says which rules a text wakes;
it may wake one in vain, and never leaves one asleep that would find something.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ALL",
    "BLANKS",
    "EDGE",
    "LONGEST",
    "UNPRINTABLE",
    "WOKEN_BY",
    "Joined",
    "Triggers",
    "by_letter",
    "joined",
    "woken_by",
]

ALL = -1  # what wakes every rule
LONGEST = 4  # characters of a trigger
EDGE = "\0"  # in a trigger: where a text begins or ends
BLANKS = " \t-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # in a set
UNPRINTABLE = "\x7f"  # as a trigger: any character that `str.isprintable` says no to
# What stands for a character beyond the 65,536 that fit two bytes, and for an edge within a text:
# in no set, and unprintable as well, so that it wakes rather too much.
_STAND_IN = "\ue000"
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
_ELEMENT = re.compile(r"\[(?P<none>\^?)(?P<set>[^\]]+|\])\]|(?P<char>.)", re.S)
_RANGE = re.compile("(.)-(.)", re.S)

Rule = TypeVar("Rule", bound=Callable[..., object])


class Waking(NamedTuple):
    """What wakes a rule.

    Attributes:
        triggers: Of which one must stand in the text.
        first: The characters of that one with which the text begins.
    """

    triggers: tuple[str, ...]
    first: frozenset[str]


WOKEN_BY: dict[str, Waking] = {}  # by name of the rule


def woken_by(*triggers: str, first: Iterable[str] = ()) -> Callable[[Rule], Rule]:
    """Declares what wakes the rule that is defined under it.

    Args:
        triggers: Of which one must stand in the text,
        first: or one of these characters at its beginning; none of them ``-`` or ``]``.
    """

    def declare(rule: Rule) -> Rule:
        firsts = frozenset(first)
        begins = (f"{EDGE}[{''.join(sorted(firsts))}]",) if firsts else ()
        WOKEN_BY[rule.__name__] = Waking((*triggers, *begins), firsts)
        return rule

    return declare


def by_letter(patterns: Iterable[str]) -> str:
    """Returns alternatives of a pattern joined, those that begin with the same letter in one.

    The search passes over what is none of these letters, ten times as quickly as if any of the
    alternatives began with something else: an assertion, a set or a bracket.
    """
    groups: dict[str, list[str]] = {}
    for pattern in patterns:
        groups.setdefault(pattern[0], []).append(pattern[1:])
    return "|".join(
        re.escape(letter) + (f"(?:{'|'.join(ends)})" if any(ends) else "")
        for letter, ends in groups.items()
    )


class Joined(NamedTuple):
    """Many texts in a row, an edge before each and some behind the last.

    Attributes:
        chars: (n,) the characters as UTF-16 units, one for each, uint16.
        places: (n,) the same as indices.
        starts: (texts,) where the edge before each text stands.
    """

    chars: "NDArray[np.uint16]"
    places: "NDArray[np.intp]"
    starts: "NDArray[np.intp]"


def joined(texts: Sequence[str]) -> Joined:
    """Joins at least one text."""
    import numpy as np

    text = EDGE + EDGE.join(texts) + EDGE * LONGEST
    if text.count(EDGE) > len(texts) + LONGEST:  # one of them holds what looks like an edge
        return joined([text.replace(EDGE, _STAND_IN) for text in texts])
    packed = text.encode("utf-16-le", "surrogatepass")
    if len(packed) > 2 * len(text):
        packed = _BEYOND.sub(_STAND_IN, text).encode("utf-16-le", "surrogatepass")
    chars = np.frombuffer(packed, "<u2")
    sizes = np.fromiter(map(len, texts), np.intp, len(texts)) + 1
    return Joined(chars, chars.astype(np.intp), np.cumsum(sizes) - sizes)


class _Element(NamedTuple):
    """One place of a trigger: one of these characters, or, where `none`, none of them."""

    chars: str
    none: bool

    @property
    def pattern(self) -> str:
        if self.chars == EDGE:
            return r"\Z"
        return rf"(?:[^{re.escape(self.chars)}]|\Z)" if self.none else f"[{re.escape(self.chars)}]"


def _elements(trigger: str) -> list[_Element]:
    found = []
    for element in _ELEMENT.finditer(trigger):
        chars = element["char"] or _RANGE.sub(_spelled, element["set"])
        found.append(_Element(chars, bool(element["none"])))
    if not 0 < len(found) <= LONGEST:
        raise ValueError(f"a trigger of 1 to {LONGEST} characters was expected, found {trigger!r}")
    return found


def _spelled(found: re.Match[str]) -> str:
    return "".join(map(chr, range(ord(found[1]), ord(found[2]) + 1)))


def _pattern(elements: Sequence[_Element]) -> str:
    return "".join(element.pattern for element in elements)


def _anchor(elements: Sequence[_Element]) -> int | None:
    """Returns the place of the last single character, by which a trigger is found soonest."""
    if elements[0].chars == EDGE:
        return None
    single = [i for i, e in enumerate(elements) if len(e.chars) == 1 and not e.none]
    return next((i for i in reversed(single) if elements[i].chars != EDGE), None)


def _beside(elements: Sequence[_Element], anchor: int) -> str:
    """Returns a pattern of one character of a trigger and of what must stand beside it."""
    before, letter = elements[:anchor], elements[anchor].chars
    # A look behind has one width, but a text may begin where another character must not stand.
    while before and any(e.none or e.chars == EDGE for e in before):
        before = before[1:]
    behind = f"(?<={_pattern(before)}{re.escape(letter)})" if before else ""
    after = elements[anchor + 1 :]
    return letter + behind + (f"(?={_pattern(after)})" if after else "")


@cache
def _unprintable() -> "NDArray[np.bool_]":
    import numpy as np

    return np.array([not chr(code).isprintable() for code in range(1 << 16)])


class Triggers:
    """The triggers of some rules, and which of the rules a text wakes.

    What a text wakes is a number: that of a rule, in `bits`, shares a bit with it where the text
    holds a trigger of the rule.

    Args:
        groups: Names of rules to their triggers. Where a text is looked at by itself, the triggers
            of a group without a single character are sought together, and wake all their rules.
    """

    def __init__(self, *groups: Mapping[str, Sequence[str]]) -> None:
        self._groups = [
            [(rule, trigger, _elements(trigger)) for rule in group for trigger in group[rule]]
            for group in groups
        ]
        self._all = [found for group in self._groups for found in group]
        shared: dict[tuple[str, int | str], int] = {}
        self._bit: dict[tuple[str, str], int] = {}  # of rule and trigger
        self.bits: dict[str, int] = {rule: 0 for group in groups for rule in group}
        for rule, trigger, elements in self._all:
            # Those of a length share one, so 大夫 and 教授 also find 大授: in vain, but seldom.
            alike = trigger if any(none for _, none in elements) else len(elements)
            bit = shared.setdefault((rule, alike), 1 << len(shared))
            self._bit[rule, trigger] = bit
            self.bits[rule] |= bit

    def of(self, text: str) -> int:
        """Returns what one text wakes."""
        letters, unprintable = self._letters, self._unprintable
        found = self._first.get(text[:1], 0)
        if not text.isprintable():
            found |= unprintable
        for letter in self._single(text):
            found |= letters[letter]
        for search, bits in self._sets:
            if search(text):
                found |= bits
        return found

    def of_all(self, texts: Joined) -> list[int]:
        """Returns the same of many texts; each may wake less in vain."""
        import numpy as np

        places, end = texts.places, len(texts.places) - LONGEST + 1
        first, second, *others = self._tables
        found = first.take(places[:end], mode="clip")
        found &= second.take(places[1 : end + 1], mode="clip")
        # Where two characters may begin a trigger, at one place in thirty, the others are asked.
        begun = np.flatnonzero(found != 0)
        whole = found[begun]
        for offset, table in enumerate(others, 2):
            whole &= table.take(places[begun + offset], mode="clip")
        found[begun] = whole
        woken: list[int] = np.bitwise_or.reduceat(found, texts.starts).tolist()
        return woken

    @cached_property
    def _tables(self) -> "list[NDArray[np.unsignedinteger]]":
        """For each place of a trigger: character to the bits of what may go on with it there."""
        import numpy as np

        # No wider than the bits need: what fits the cache is looked up faster.
        kind = np.min_scalar_type(max(self.bits.values()))
        tables = [np.zeros(1 << 16, kind) for _ in range(LONGEST)]
        beyond = [0] * LONGEST  # bits of the triggers that have ended before
        for rule, trigger, elements in self._all:
            bit = kind.type(self._bit[rule, trigger])
            for table, (chars, none) in zip(tables, elements, strict=False):
                here: Any = list(map(ord, chars))
                if trigger == UNPRINTABLE:
                    here = _unprintable()
                elif none:
                    here, but = np.ones(1 << 16, bool), here
                    here[but] = False
                table[here] |= bit
                if len(elements) == 1:
                    table[ord(EDGE)] &= ~bit  # no character of a text
            for place in range(len(elements), LONGEST):
                beyond[place] |= int(bit)
        for table, bits in zip(tables, beyond, strict=True):
            table |= kind.type(bits)
        return tables

    # For a text by itself.

    @cached_property
    def _first(self) -> dict[str, int]:
        """First characters of texts, to the bits of the triggers that begin with the edge."""
        found: dict[str, int] = {}
        for rule, trigger, elements in self._all:
            for char in elements[1].chars if trigger[0] == EDGE else ():
                found[char] = found.get(char, 0) | self._bit[rule, trigger]
        return found

    @cached_property
    def _unprintable(self) -> int:
        found = 0
        for rule, trigger, _ in self._all:
            if trigger == UNPRINTABLE:
                found |= self._bit[rule, trigger]
        return found

    @cached_property
    def _letters(self) -> dict[str, int]:
        """The single characters by which triggers are found, to the bits of these."""
        letters: dict[str, int] = {}
        for rule, trigger, elements in self._all:
            anchor = _anchor(elements)
            if anchor is not None:
                letter = elements[anchor].chars
                letters[letter] = letters.get(letter, 0) | self._bit[rule, trigger]
        return letters

    @cached_property
    def _single(self) -> Callable[[str], list[str]]:
        """Finds these characters where a trigger stands around them."""
        anchored = [(elements, _anchor(elements)) for _, _, elements in self._all]
        patterns = [_beside(elements, at) for elements, at in anchored if at is not None]
        return re.compile(by_letter(patterns) or "(?!)").findall

    @cached_property
    def _sets(self) -> list[tuple[Callable[[str], object], int]]:
        """A search for all other triggers of each group, and what they wake."""
        found: list[tuple[Callable[[str], object], int]] = []
        for group in self._groups:
            others = [(r, t, e) for r, t, e in group if _anchor(e) is None and t[0] != EDGE]
            if others:
                # One set to pass over all else quickly; which of the triggers it is comes behind.
                begun = [elements for *_, elements in others if not elements[0].none]
                firsts = "".join(elements[0].chars for elements in begun)
                rests = "|".join(f"(?<={e[0].pattern}){_pattern(e[1:])}" for e in begun)
                patterns = [f"[{re.escape(firsts)}](?:{rests})"] if begun else []
                patterns += [_pattern(elements) for *_, elements in others if elements[0].none]
                bits = 0
                for rule, trigger, _ in others:
                    bits |= self._bit[rule, trigger]
                found.append((re.compile("|".join(patterns)).search, bits))
        return found
