"""The cleaning of a pair: which rules run, in which order, and what each changed."""

import re
from collections.abc import Callable
from inspect import getdoc

from medqa.data import courtesies, drop, mend, privacy
from medqa.data.rules import Rules

Change = tuple[str, str, str]  # rule, text before it, text after it; both "" where not to be shown
Mender = Callable[[str], str]
Objector = Callable[[str, str], bool]

# In this order: an entity may stand for a tag, a tag for a line break, and punctuation is made
# full-width before repetitions of it are sought.
CHARACTERS: tuple[Mender, ...] = (
    mend.html_entities,
    mend.html_tags,
    mend.invisible,
    mend.half_width,
    mend.han_punctuation,
    mend.whitespace,
    mend.repeated_punctuation,
)
# Labels first: the greeting often stands behind one.
QUESTION_COURTESIES: tuple[Mender, ...] = (
    courtesies.section_labels,
    courtesies.greetings,
    courtesies.question_courtesies,
    mend.stray_punctuation,
)
ANSWER_COURTESIES: tuple[Mender, ...] = (
    courtesies.section_labels,
    courtesies.greetings,
    courtesies.closing_wishes,
    mend.stray_punctuation,
)
OBJECTIONS: tuple[Objector, ...] = (
    drop.url_answer,
    drop.truncated_answer,
    drop.echo_answer,
    drop.off_topic,
    drop.advertisement,
)


# Two marks in a row, and characters that a rule of `CHARACTERS` may change.
_SINGLE = " ,:;?!&<(\ufffd％＋－．／０-９Ａ-Ｚａ-ｚ"
_WIDE = "，。；、！？：…"
_ODDITY = re.compile(
    rf"[{_WIDE}.~～{_SINGLE}](?:[{_WIDE},;:!?.]|(?<![{_WIDE}])"
    rf"(?:(?<=[{_SINGLE}])|(?<=\.)(?![0-9])|(?<=~)~|(?<=～)～))"
)


def _is_plain(text: str) -> bool:
    """Tells that no rule of `CHARACTERS` can find anything in `text`."""
    return text.isprintable() and not _ODDITY.search(text)


# Where a text neither begins with one of the first nor holds what the second find, the rule
# changes nothing.
_WOKEN_BY: dict[Mender, tuple[frozenset[str], tuple[str, ...]]] = {
    courtesies.section_labels: (courtesies.LABEL_FIRST, courtesies.LABEL_TRIGGERS),
    courtesies.greetings: (courtesies.GREETING_FIRST, courtesies.GREETING_TRIGGERS),
    courtesies.question_courtesies: (frozenset(), courtesies.PLEA_TRIGGERS),
    courtesies.closing_wishes: (frozenset(), courtesies.CLOSING_TRIGGERS),
    mend.stray_punctuation: (mend.STRAY_FIRST, mend.STRAY_TRIGGERS),
}


def _first_line(rule: Mender | Objector) -> str:
    return (getdoc(rule) or "").split("\n", 1)[0]


_ALL: tuple[Mender | Objector, ...] = (
    *CHARACTERS,
    *QUESTION_COURTESIES,
    *ANSWER_COURTESIES,
    *OBJECTIONS,
)
DESCRIPTIONS: dict[str, str] = {rule.__name__: _first_line(rule) for rule in _ALL}


class Cleaner:
    """Mends texts and objects to pairs, by the rules that are on.

    Mending twice gives the same as mending once.
    """

    def __init__(self, rules: Rules, privacy: bool) -> None:
        """Takes the rules that are on, and whether personal data is replaced."""

        def chosen(group: tuple[Mender, ...]) -> list[Mender]:
            return [rule for rule in group if getattr(rules, rule.__name__)]

        characters = chosen(CHARACTERS)
        self._question = _Mending(characters, chosen(QUESTION_COURTESIES), privacy)
        self._answer = _Mending(characters, chosen(ANSWER_COURTESIES), privacy)
        self._links = rules.url_answer
        self._objections = [(r.__name__, r) for r in OBJECTIONS if getattr(rules, r.__name__)]

    def question(self, text: str) -> tuple[str, list[Change]]:
        """Returns the mended question and what changed it."""
        return self._question(text)

    def answer(self, text: str) -> tuple[str, list[Change]]:
        """Returns the mended answer and what changed it; one of links alone stays as it is."""
        bare = text.strip()
        if drop.url_answer("", bare):
            return bare, []
        return self._answer(text)

    def refuses_link(self, answer: str) -> bool:
        """Says whether an answer, not yet mended, is links alone and the rule against it is on."""
        return self._links and drop.url_answer("", answer.strip())

    def objection(self, question: str, answer: str) -> str | None:
        """Returns the name of the first rule that objects to the cleaned pair, or None."""
        for name, rule in self._objections:
            if rule(question, answer):
                return name
        return None


class _Mending:
    """The rules for one kind of text.

    Most texts are clean, so a single search tells which rules could find anything in a text: it
    returns the first characters of all triggers in it. Only those rules run that are woken by one.
    """

    def __init__(self, characters: list[Mender], polite: list[Mender], privacy_on: bool) -> None:
        self._characters = characters
        self._polite = [(rule, _firsts(_WOKEN_BY[rule][1]), _WOKEN_BY[rule][0]) for rule in polite]
        self._privacy = privacy_on
        triggers = [_WOKEN_BY[rule][1] for rule in polite]
        if privacy_on:
            triggers.append(privacy.TRIGGERS)
        # Each trigger begins with a letter: what is none of these letters is passed over quickly.
        self._triggers = re.compile(
            "|".join(t for group in triggers for t in group) or "(?!)"
        ).findall
        self._begins: frozenset[str] = frozenset().union(*(first for _, _, first in self._polite))

    def __call__(self, text: str) -> tuple[str, list[Change]]:
        """Returns the mended text and what changed it."""
        changes: list[Change] = []
        found: list[str] | None = None
        while True:
            start = text
            if not _is_plain(text):
                for rule in self._characters:
                    text = _applied(rule, text, changes)
            if found is None or text != start:
                found = self._found(text)
            if self._privacy and found and not _PRIVACY_MARKS.isdisjoint(found):
                text, types = privacy.mask(text)
                if types:  # what was changed before it holds the personal data: not to be shown
                    changes = [(name, "", "") for name, _, _ in changes]
                    changes += [(f"privacy:{kind}", "", text) for kind in types]
                    found = self._found(text)
            before = text
            if found or text[:1] in self._begins:
                for rule, marks, begins in self._polite:
                    if text[:1] in begins or not marks.isdisjoint(found):
                        mended = _applied(rule, text, changes)
                        # What only lost its beginning holds no trigger that it did not hold.
                        if not text.endswith(mended):
                            found = self._found(mended)
                        text = mended
            # Where something was cut out, or marks became one beside a blank, look again.
            if text == before and (text == start or " " not in text):
                return text, changes

    def _found(self, text: str) -> list[str]:
        """Returns the first characters of the triggers in `text`, and a 0 for many digits."""
        found: list[str] = self._triggers(text)
        if self._privacy and privacy.may_hold_numbers(text):
            found.append("0")
        return found


def _firsts(triggers: tuple[str, ...]) -> frozenset[str]:
    """Returns the characters with which what `triggers` find begins."""
    return frozenset(trigger.removeprefix("\\")[0] for trigger in triggers)


_PRIVACY_MARKS = _firsts(privacy.TRIGGERS) | {"0"}


def _applied(rule: Mender, text: str, changes: list[Change]) -> str:
    mended = rule(text)
    if mended != text:
        changes.append((rule.__name__, text, mended))
    return mended
