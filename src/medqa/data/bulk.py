"""Many rows at once, with the results of `kinds.convert`: what looks at a text looks at all in one.

Only finding is done together: which rules the texts wake, before they are mended and after, and
the keys of the mended. A text that wakes a rule is mended by itself, as by `convert`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from xxhash import xxh3_64_intdigest

from medqa.data.clean import AFTER, ANSWERED, ASKED, BEFORE, Change, Cleaner
from medqa.data.kinds import WAYS
from medqa.data.normal import keys_of
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
    mended_answer,
    mended_question,
)
from medqa.data.triggers import joined

LONGEST = 1 << 15  # characters of a text; joining longer ones would cost more memory than time


def convert_all(
    rows: Sequence[Row], schemas: Sequence[Keys], settings: Settings, cleaner: Cleaner
) -> list[list[Record | Rejection]]:
    """Returns what `kinds.convert` returns of each row."""
    divide, conclude = WAYS[settings.kind]
    divided = [divide(row, schemas) for row in rows]
    pairs = [pair for found, _ in divided if not isinstance(found, str) for pair in found]
    known = Known(
        _answers(_unlike(answer for _, answer in pairs), settings, cleaner),
        _questions(_unlike(question for question, _ in pairs), settings, cleaner),
    )
    return [
        conclude(row, found, department, settings, cleaner, known)
        for row, (found, department) in zip(rows, divided, strict=True)
    ]


def _unlike(texts: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(t for t in texts if isinstance(t, str) and len(t) <= LONGEST))


def _answers(texts: list[str], settings: Settings, cleaner: Cleaner) -> dict[str, str | Answer]:
    """Returns each text with what `rows` makes of it as an answer."""
    if not texts:
        return {}
    mended = _mended(
        texts,
        settings.limits.max_answer,
        cleaner.answer_bits,
        lambda text, woken: mended_answer(text, settings, cleaner, woken),
    )
    return {
        raw: found
        if isinstance(found, str)
        else Answer(found[0], xxh3_64_intdigest(key), found[1], woken & ANSWERED)
        if key
        else EMPTY_ANSWER
        for raw, found, (key, woken) in zip(texts, mended, _read(mended), strict=True)
    }


def _questions(texts: list[str], settings: Settings, cleaner: Cleaner) -> dict[str, str | Question]:
    """Returns each text with what `rows` makes of it as a question."""
    if not texts:
        return {}
    mended = _mended(
        texts,
        settings.limits.max_question,
        cleaner.question_bits,
        lambda text, woken: mended_question(text, settings, cleaner, woken),
    )
    return {
        raw: found
        if isinstance(found, str)
        else Question(found[0], key.decode(), xxh3_64_intdigest(key), found[1], woken & ASKED)
        if key
        else EMPTY_QUESTION
        for raw, found, (key, woken) in zip(texts, mended, _read(mended), strict=True)
    }


def _mended(
    texts: list[str],
    most: int,
    bits: int,
    mend: Callable[[str, int], str | tuple[str, list[Change]]],
) -> list[str | tuple[str, list[Change]]]:
    """Returns what `mend` makes of each text; one that wakes none of `bits` needs no mending."""
    return [
        mend(text, woken) if woken & bits or len(text) > most else (text, [])
        for text, woken in zip(texts, BEFORE.of_all(joined(texts)), strict=True)
    ]


def _read(mended: list[str | tuple[str, list[Change]]]) -> Iterator[tuple[bytes, int]]:
    """Yields of each mended text its key and what it wakes; anything of one that is refused."""
    texts = ["" if isinstance(found, str) else found[0] for found in mended]
    together = joined(texts)
    return zip(keys_of(texts, together), AFTER.of_all(together), strict=True)
