"""The cleaning of a pair: which rules run, in which order, and what each changed."""

import re
from collections.abc import Callable
from inspect import getdoc

from medqa.config import Strict
from medqa.data import courtesies, drop, mend, privacy

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


class Rules(Strict):
    """Cleaning rules by name, each on or off; all are on where a YAML says nothing.

    Attributes:
        html_entities: ``&lt;`` becomes ``<``.
        html_tags: ``<br>`` and its like go.
        invisible: Control and zero-width characters go.
        half_width: ``０．５ｍｇ`` becomes ``0.5mg``.
        whitespace: Runs of blanks become one; empty lines go.
        han_punctuation: ``,`` beside Han characters becomes ``，``.
        repeated_punctuation: ``！！！`` becomes ``！``.
        section_labels: ``病情分析：`` and its like go, their content stays.
        greetings: ``您好，`` at the start goes.
        question_courtesies: ``谢谢医生`` at a question's end goes.
        closing_wishes: ``祝早日康复`` in an answer goes.
        stray_punctuation: Punctuation that begins a line goes.
        url_answer: Drop answers that are nothing but links.
        truncated_answer: Drop answers that break off.
        echo_answer: Drop answers that repeat the question.
        off_topic: Drop veterinary questions.
        advertisement: Drop answers that advertise.
    """

    html_entities: bool = True
    html_tags: bool = True
    invisible: bool = True
    half_width: bool = True
    whitespace: bool = True
    han_punctuation: bool = True
    repeated_punctuation: bool = True
    section_labels: bool = True
    greetings: bool = True
    question_courtesies: bool = True
    closing_wishes: bool = True
    stray_punctuation: bool = True
    url_answer: bool = True
    truncated_answer: bool = True
    echo_answer: bool = True
    off_topic: bool = True
    advertisement: bool = True


# A text in which no rule of `CHARACTERS` can find anything: words with single marks between them.
_PLAIN = re.compile(
    r"[（《“【]*+(?:(?:[\u4e00-\u9fffA-Za-z0-9%℃/+=×·—-]|[.](?=[0-9]))++[，。；、？！：]?+[（）《》“”【】]*+)*+"
)


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

        def chosen(group: tuple[Mender, ...]) -> list[tuple[str, Mender]]:
            return [(r.__name__, r) for r in group if getattr(rules, r.__name__)]

        self._characters = chosen(CHARACTERS)
        self._question = chosen(QUESTION_COURTESIES)
        self._answer = chosen(ANSWER_COURTESIES)
        self._objections = [(r.__name__, r) for r in OBJECTIONS if getattr(rules, r.__name__)]
        self._privacy = privacy

    def question(self, text: str) -> tuple[str, list[Change]]:
        """Returns the mended question and what changed it."""
        return self._mended(text, self._question)

    def answer(self, text: str) -> tuple[str, list[Change]]:
        """Returns the mended answer and what changed it; one of links alone stays as it is."""
        bare = text.strip()
        if drop.url_answer("", bare):
            return bare, []
        return self._mended(text, self._answer)

    def objection(self, question: str, answer: str) -> str | None:
        """Returns the name of the first rule that objects to the cleaned pair, or None."""
        for name, rule in self._objections:
            if rule(question, answer):
                return name
        return None

    def _mended(self, text: str, polite: list[tuple[str, Mender]]) -> tuple[str, list[Change]]:
        changes: list[Change] = []
        while True:
            start = text
            if not _PLAIN.fullmatch(text):
                for name, rule in self._characters:
                    text = _applied(name, rule, text, changes)
            if self._privacy:
                text, types = privacy.mask(text)
                if types:  # what was changed before it holds the personal data: not to be shown
                    changes = [(name, "", "") for name, _, _ in changes]
                    changes += [(f"privacy:{kind}", "", text) for kind in types]
            before = text
            for name, rule in polite:
                text = _applied(name, rule, text, changes)
            # Where something was cut out, or marks became one beside a blank, look again.
            if text == before and (text == start or " " not in text):
                return text, changes


def _applied(name: str, rule: Mender, text: str, changes: list[Change]) -> str:
    mended = rule(text)
    if mended != text:
        changes.append((name, text, mended))
    return mended
