"""The cleaning of a pair: which rules run, in which order, and what each changed."""

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from inspect import getdoc
from typing import TypeVar

from medqa.data import courtesies, drop, mend, normal, privacy
from medqa.data.triggers import ALL, WOKEN_BY, Triggers, joined

Result = TypeVar("Result")

Change = tuple[str, str, str]  # rule, text before it, text after it; both "" where not to be shown
Mended = tuple[str, list[Change]]
# Mending that yields each text of which it must know what it wakes, is sent that, and returns its
# result. So thousands of texts are mended together: a look at all costs a fifth of one at each.
Steps = Generator[str, int, Result]
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
    drop.empty_form,
    drop.off_topic,
    drop.advertisement,
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


# What wakes the masking of personal data, and what wakes rules before and after the mending.
_PRIVACY = "privacy"
_POLITE = dict.fromkeys(QUESTION_COURTESIES + ANSWER_COURTESIES)


def _of(rules: Iterable[Mender | Objector]) -> dict[str, tuple[str, ...]]:
    return {rule.__name__: WOKEN_BY[rule.__name__].triggers for rule in rules}


BEFORE = Triggers(
    _of(CHARACTERS), _of(_POLITE), {_PRIVACY: privacy.TRIGGERS}, _of([drop.url_answer])
)
# Sought together with what wakes the objections, as a third look would cost as much as the others.
_HARD = "hard key"
AFTER = Triggers(
    _of(rule for rule in OBJECTIONS if rule.__name__ in WOKEN_BY), {_HARD: normal.HARD}
)
# Of `AFTER`, what is sought in a question, what in an answer, and what for the key of either.
ASKED = AFTER.bits[drop.empty_form.__name__] | AFTER.bits[drop.off_topic.__name__]
HARD = AFTER.bits[_HARD]
ANSWERED = sum(AFTER.bits.values()) - ASKED - HARD
_LINK = BEFORE.bits[drop.url_answer.__name__]
_CHARACTERS = sum(BEFORE.bits[rule.__name__] for rule in CHARACTERS)


class Cleaner:
    """Mends texts and objects to pairs, by the rules that are on.

    Mending twice gives the same as mending once.
    """

    def __init__(self, rules: Collection[str], privacy: bool) -> None:
        """Takes the names of the rules that are on, and whether personal data is replaced."""

        def chosen(group: tuple[Mender, ...]) -> list[Mender]:
            return [rule for rule in group if rule.__name__ in rules]

        characters = chosen(CHARACTERS)
        self._question = _Mending(characters, chosen(QUESTION_COURTESIES), privacy)
        self._answer = _Mending(characters, chosen(ANSWER_COURTESIES), privacy)
        self._links = drop.url_answer.__name__ in rules
        self._unquotes = courtesies.closing_wishes.__name__ in rules
        # Of `BEFORE`, all without which a question, an answer stays as it is.
        self.question_bits = self._question.bits
        self.answer_bits = self._answer.bits | _LINK
        self._objections = [
            (r.__name__, r, AFTER.bits.get(r.__name__, ALL))
            for r in OBJECTIONS
            if r.__name__ in rules
        ]
        self._always = [found for found in self._objections if found[2] == ALL]
        self._sleeping = sum(bits for _, _, bits in self._objections if bits != ALL)

    def question(self, text: str) -> Mended:
        """Returns the mended question and what changed it."""
        return self.alone(self.question_steps(text))

    def answer(self, text: str) -> Mended:
        """Returns the mended answer and what changed it; one of links alone stays as it is."""
        return self.alone(self.answer_steps(text))

    def question_steps(self, text: str, woken: int | None = None) -> Steps[Mended]:
        """The same as `question`, in steps.

        Args:
            text: The question.
            woken: What it wakes by `BEFORE`, where that is known.
        """
        return self._question(text, woken)

    def answer_steps(self, text: str, woken: int | None = None) -> Steps[Mended]:
        """The same as `answer`, in steps."""
        if woken is None or woken & _LINK:
            bare = text.strip()
            if drop.url_answer("", bare):
                return bare, []
        return (yield from self._answer(text, woken))

    @staticmethod
    def alone(steps: Steps[Result]) -> Result:
        """Returns the result of one text."""
        try:
            text = next(steps)
            while True:
                text = steps.send(BEFORE.of(text))
        except StopIteration as end:
            result: Result = end.value
            return result

    @staticmethod
    def together(steps: Sequence[Steps[Result]]) -> list[Result]:
        """Returns the result of each of many texts."""
        results: dict[int, Result] = {}
        waiting: list[tuple[int, int | None]] = [(place, None) for place in range(len(steps))]
        while waiting:
            asked = []
            for place, woken in waiting:
                try:
                    # `send` begins with None.
                    asked.append((place, steps[place].send(woken)))  # type: ignore[arg-type]
                except StopIteration as end:
                    results[place] = end.value
            if not asked:
                break
            found = BEFORE.of_all(joined([text for _, text in asked]))
            waiting = [(place, woken) for (place, _), woken in zip(asked, found, strict=True)]
        return [results[place] for place in range(len(steps))]

    def refuses_link(self, answer: str) -> bool:
        """Says whether an answer, not yet mended, is links alone and the rule against it is on."""
        return self._links and drop.url_answer("", answer.strip())

    def pair(self, question: str, answer: str) -> Mended:
        """Returns the mended answer to a mended question, and what the two together changed."""
        text = courtesies.unquoted(question, answer) if self._unquotes else answer
        return text, [] if text is answer else [(courtesies.closing_wishes.__name__, answer, text)]

    def objection(self, question: str, answer: str, woken: int = ALL) -> str | None:
        """Returns the name of the first rule that objects to the cleaned pair, or None.

        Args:
            question: The mended question.
            answer: The mended answer.
            woken: What either wakes by `AFTER`, where that is known.
        """
        for name, rule, bits in self._objections if woken & self._sleeping else self._always:
            if (bits == ALL or woken & bits) and rule(question, answer):
                return name
        return None


class _Mending:
    """The rules for one kind of text. Only those run that a text wakes."""

    def __init__(self, characters: list[Mender], polite: list[Mender], privacy_on: bool) -> None:
        bits = BEFORE.bits
        self._characters = [(rule, bits[rule.__name__]) for rule in characters]
        self._polite = [(r, bits[r.__name__], WOKEN_BY[r.__name__].first) for r in polite]
        self._privacy = bits[_PRIVACY] if privacy_on else 0
        self.bits = self._privacy + sum(bits[rule.__name__] for rule in [*characters, *polite])

    def __call__(self, text: str, woken: int | None) -> Steps[Mended]:
        """Returns the mended text and what changed it."""
        changes: list[Change] = []
        if woken is None:
            woken = yield text
        if not woken & self.bits:
            return text, changes
        while True:
            start = text
            if woken & _CHARACTERS:
                for rule, bits in self._characters:
                    if woken & bits:
                        mended = _applied(rule, text, changes)
                        if mended is not text:  # what one rule makes may wake another
                            woken, text = ALL, mended
                if text != start:
                    woken = yield text
            if woken & self._privacy:
                text, types = privacy.mask(text)
                if types:  # what was changed before it holds the personal data: not to be shown
                    changes = [(name, "", "") for name, _, _ in changes]
                    changes += [(f"privacy:{kind}", "", text) for kind in types]
                    woken = yield text
            masked = text
            for rule, bits, begins in self._polite:
                if woken & bits or text[:1] in begins:
                    mended = _applied(rule, text, changes)
                    if mended is not text:
                        woken, text = (yield mended), mended
            # Where something was cut out, or marks became one beside a blank or a bracket, look
            # again.
            if text == masked and (text == start or (" " not in text and "(" not in text)):
                return text, changes


def _applied(rule: Mender, text: str, changes: list[Change]) -> str:
    mended = rule(text)
    if mended != text:
        changes.append((rule.__name__, text, mended))
        return mended
    return text
