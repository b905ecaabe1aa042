"""Many rows at once, with the results of `kinds.convert`: what looks at a text looks at all in one.

Finding is done together: which rules the texts wake, before they are mended, at each step of
mending and after, and the keys of the mended. So is the making of records: where thousands of
values take the same steps, `map` and `zip` take them without a line of Python for each. The rules
themselves are those of `convert`, and so are the rows that are no single pair.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from xxhash import xxh3_64_intdigest

from medqa.data.clean import AFTER, ANSWERED, ASKED, BEFORE, HARD, Change, Cleaner, Mended, Steps
from medqa.data.kinds import WAYS, Pairs
from medqa.data.normal import canonical_of, keys_of
from medqa.data.rows import (
    EMPTY_ANSWER,
    EMPTY_QUESTION,
    Answer,
    Keys,
    Known,
    Question,
    Record,
    Rejection,
    Row,
    Settings,
    answer_steps,
    paired,
    question_steps,
)
from medqa.data.split import rank
from medqa.data.triggers import joined

LONGEST = 1 << 15  # characters of a text; joining longer ones would cost more memory than time

# A named tuple of a row of `zip`, in half the time that calling its class takes.
_new_answer: Callable[[Iterable[Any]], Answer] = partial(tuple.__new__, Answer)
_new_question: Callable[[Iterable[Any]], Question] = partial(tuple.__new__, Question)
_new_record: Callable[[Iterable[Any]], Record] = partial(tuple.__new__, Record)


def convert_all(
    rows: Sequence[Row], schemas: Sequence[Keys], settings: Settings, cleaner: Cleaner
) -> list[list[Record | Rejection]]:
    """Returns what `kinds.convert` returns of each row."""
    divide, conclude = WAYS[settings.kind]
    divided = [divide(row, schemas) for row in rows]
    pairs = [pair for found, _ in divided if not isinstance(found, str) for pair in found]
    known = Known(
        _answers(_unlike([answer for _, answer in pairs]), settings, cleaner),
        _questions(_unlike([question for question, _ in pairs]), settings, cleaner),
    )
    records: dict[int, Record] = {}
    if settings.kind == "pairs" and not settings.segment_questions:
        records = _plain(rows, divided, settings, cleaner, known)
    return [
        [records[place]]
        if place in records
        else conclude(row, *divided[place], settings, cleaner, known)
        for place, row in enumerate(rows)
    ]


def _unlike(texts: list[Any]) -> list[str]:
    return list(dict.fromkeys([t for t in texts if isinstance(t, str) and len(t) <= LONGEST]))


def _plain(
    rows: Sequence[Row],
    divided: Sequence[tuple[Pairs, str]],
    settings: Settings,
    cleaner: Cleaner,
    known: Known,
) -> dict[int, Record]:
    """Returns place and record of each row that is one pair to which nothing objects."""
    limits, places = settings.limits, []
    questions, answers, departments = [], [], []
    for place, (pairs, department) in enumerate(divided):
        if isinstance(pairs, str) or len(pairs) != 1:
            continue
        asked, answered = pairs[0]
        if not (isinstance(asked, str) and isinstance(answered, str)):
            continue
        question, answer = known.questions.get(asked), known.answers.get(answered)
        if not (isinstance(question, Question) and isinstance(answer, Answer)):
            continue
        answer = paired(question, answer, cleaner)
        if (
            len(question.text) >= limits.min_question
            and len(answer.text) >= limits.min_answer
            and not cleaner.objection(question.text, answer.text, question.woken | answer.woken)
        ):
            places.append(place)
            questions.append(question)
            answers.append(answer)
            departments.append(department)
    if not places:
        return {}
    asked, keys, hashes, mended, _ = zip(*questions, strict=True)
    answered, answer_hashes, answers_mended, _ = zip(*answers, strict=True)
    records = zip(
        [rows[place].source for place in places],
        [rows[place].number for place in places],
        repeat(0),
        asked,
        answered,
        departments,
        hashes,
        answer_hashes,
        map(canonical_of, keys),
        map(rank, repeat(settings.seed), hashes, answer_hashes),
        [q + a if q or a else q for q, a in zip(mended, answers_mended, strict=True)],
        repeat(""),
        repeat(0),
    )
    return dict(zip(places, map(_new_record, records), strict=True))


class _Texts(NamedTuple):
    """Mended texts, in columns.

    Attributes:
        texts: Empty where one is refused.
        changes: What changed each.
        refused: Place to the reason against it.
        keys: `normalise` of each, in UTF-8.
        woken: What each wakes by `AFTER`.
    """

    texts: list[str]
    changes: list[list[Change]]
    refused: dict[int, str]
    keys: list[bytes]
    woken: list[int]


def _answers(raw: list[str], settings: Settings, cleaner: Cleaner) -> dict[str, str | Answer]:
    """Returns each text with what `rows` makes of it as an answer."""
    if not raw:
        return {}
    most, bits = settings.limits.max_answer, cleaner.answer_bits
    mended = _mended(
        raw, most, bits, lambda text, woken: answer_steps(text, settings, cleaner, woken)
    )
    hashes = map(xxh3_64_intdigest, mended.keys)
    woken = [bits & ANSWERED for bits in mended.woken]
    found = map(_new_answer, zip(mended.texts, hashes, mended.changes, woken, strict=True))
    return _unless_refused(raw, found, mended, EMPTY_ANSWER)


def _questions(raw: list[str], settings: Settings, cleaner: Cleaner) -> dict[str, str | Question]:
    """Returns each text with what `rows` makes of it as a question."""
    if not raw:
        return {}
    most, bits = settings.limits.max_question, cleaner.question_bits
    mended = _mended(
        raw, most, bits, lambda text, woken: question_steps(text, settings, cleaner, woken)
    )
    keys, hashes = map(bytes.decode, mended.keys), map(xxh3_64_intdigest, mended.keys)
    woken = [bits & ASKED for bits in mended.woken]
    found = map(_new_question, zip(mended.texts, keys, hashes, mended.changes, woken, strict=True))
    return _unless_refused(raw, found, mended, EMPTY_QUESTION)


def _unless_refused(
    raw: list[str], found: Iterable[Any], mended: _Texts, empty: str
) -> dict[str, Any]:
    """Returns each raw text with what was made of it, or with the reason against it."""
    known = dict(zip(raw, found, strict=True))
    if not all(mended.keys):
        known |= {text: empty for text, key in zip(raw, mended.keys, strict=True) if not key}
    return known | {raw[place]: reason for place, reason in mended.refused.items()}


def _mended(
    raw: list[str],
    most: int,
    bits: int,
    begin: Callable[[str, int], Steps[str | Mended]],
) -> _Texts:
    """Mends each text; one that wakes none of `bits` needs no mending."""
    texts, changes, refused = raw.copy(), [_NOTHING] * len(raw), {}
    woken = BEFORE.of_all(joined(raw))
    places = [
        place
        for place, (text, found) in enumerate(zip(raw, woken, strict=True))
        if found & bits or len(text) > most
    ]
    steps = [begin(raw[place], woken[place]) for place in places]
    for place, found in zip(places, Cleaner.together(steps), strict=True):
        if isinstance(found, str):
            texts[place], refused[place] = "", found
        else:
            texts[place], changes[place] = found
    together = joined(texts)
    woken = AFTER.of_all(together)
    keys = keys_of(texts, together, [bits & HARD for bits in woken])
    return _Texts(texts, changes, refused, keys, woken)


_NOTHING: list[Change] = []  # what changed all texts that nothing changed
