"""One raw row in, question-answer pairs or the reasons against them out. Pure: no files, no state.

A pair that fails a check is never lost: it becomes a `Rejection` with the name of its reason.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from medqa.data.clean import clean, normalise

# Why a pair is left out; these words stand in rejects.jsonl and manifest.json.
MALFORMED_JSON = "malformed_json"  # text that is not UTF-8 counts as malformed too
MALFORMED_CSV = "malformed_csv"  # or another number of fields than the header has
WRONG_TYPE = "wrong_type"  # the row is no object, or a question or an answer is no string
MISSING_KEY = "missing_key"
UNPAIRED = "unpaired"  # several questions and several answers, and not as many of both
EMPTY_QUESTION = "empty_question"
EMPTY_ANSWER = "empty_answer"
URL_ANSWER = "url_answer"  # the answer is nothing but links
QUESTION_TOO_SHORT = "question_too_short"
QUESTION_TOO_LONG = "question_too_long"
ANSWER_TOO_SHORT = "answer_too_short"
ANSWER_TOO_LONG = "answer_too_long"
DUPLICATE = "duplicate"  # question and answer equal after `clean.normalise`
NOT_SAMPLED = "not_sampled"  # nothing is wrong with it: left out by max_rows or replay.share
IN_TEST = "in_test"  # a replay pair whose question, or a paraphrase of it, is in the test split

_LINKS = re.compile(r"(?:[<(\"']*(?:(?:https?|ftp):)?(?://|www\.)[\x21-\x7e]+\s*)+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Keys:
    """The names under which a row holds what we need.

    Attributes:
        question: Of the question or questions.
        answer: Of the answer or answers.
        department: Of the medical department, None where a file has none.
    """

    question: str
    answer: str
    department: str | None = None


# The schemas of Huatuo-26M: all sets but Lite, then Lite (FreedomIntelligence on Hugging Face).
HUATUO = (Keys("questions", "answers"), Keys("question", "answer", "label"))


@dataclass(frozen=True, slots=True)
class Limits:
    """Lengths in characters of the cleaned text, both ends allowed."""

    min_question: int
    max_question: int
    min_answer: int
    max_answer: int


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in a file.

    Attributes:
        source: Tag of the file.
        number: Where it is, from 1: the line, or the element of a JSON array or Parquet table.
        value: The parsed row; None where it could not be parsed.
        raw: Its text, shortened, for the list of rejects.
        problem: Why it could not be parsed, or None.
        size: Bytes of the file that it takes, for the progress display.
    """

    source: str
    number: int
    value: Any
    raw: str
    problem: str | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A pair that may be trained on or tested with.

    Attributes:
        source: Tag of the file it came from.
        row: Number of its raw row.
        part: Which pair of that row, from 0.
        question: Cleaned.
        answer: Cleaned.
        department: Medical department, empty when unknown.
        question_key: 64-bit hash of the normalised question.
        pair_key: 128-bit hash of the normalised question and answer.
    """

    source: str
    row: int
    part: int
    question: str
    answer: str
    department: str
    question_key: int
    pair_key: int

    @property
    def id(self) -> str:
        """``source:row``, and ``#part`` for all but the first pair of a row."""
        return pair_id(self.source, self.row, self.part)

    def rejected(self, reason: str, raw: str = "") -> "Rejection":
        """Returns the rejection of this pair for a reason that lies outside it."""
        return Rejection(self.source, self.row, self.part, reason, raw or self.question)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A pair, or a whole row that holds none, that is left out.

    Attributes:
        source: Tag of the file it came from.
        row: Number of its raw row.
        part: Which pair of that row, from 0.
        reason: One of the constants of this module.
        raw: The row's text, shortened; the question where nothing is wrong with it.
    """

    source: str
    row: int
    part: int
    reason: str
    raw: str

    @property
    def id(self) -> str:
        """As `Record.id`."""
        return pair_id(self.source, self.row, self.part)


def pair_id(source: str, row: int, part: int) -> str:
    """Returns the id by which a pair is traced to its raw row."""
    return f"{source}:{row}" + (f"#{part}" if part else "")


def convert(row: Row, schemas: Sequence[Keys], limits: Limits) -> list[Record | Rejection]:
    """Returns one outcome for each pair of `row`, at least one.

    Questions and answers may be strings, lists, or lists of lists; the members of an inner list
    are paraphrases of one question. One answer goes with every question; as many answers as
    questions go with them one by one.

    Args:
        row: The raw row.
        schemas: The key names to look for; the first of which the row has any is taken.
        limits: The lengths that are allowed.
    """

    def reject(reason: str, part: int = 0) -> Rejection:
        return Rejection(row.source, row.number, part, reason, row.raw)

    if row.problem:
        return [reject(row.problem)]
    value = row.value
    if not isinstance(value, dict):
        return [reject(WRONG_TYPE)]
    keys = next((k for k in schemas if k.question in value or k.answer in value), None)
    if keys is None or keys.question not in value or keys.answer not in value:
        return [reject(MISSING_KEY)]
    groups, answers = _groups(value[keys.question]), _members(value[keys.answer])
    if len(answers) == 1:
        answers *= len(groups)
    elif len(groups) == 1:  # one question, several answers: each is a pair
        groups *= len(answers)
    if len(groups) != len(answers):
        return [reject(UNPAIRED)]
    department = _department(value.get(keys.department) if keys.department else None)
    texts = [(q, a) for group, a in zip(groups, answers, strict=True) for q in group]
    outcomes: list[Record | Rejection] = []
    for part, (question, answer) in enumerate(texts):
        found = _pair(question, answer, limits)
        if isinstance(found, str):
            outcomes.append(reject(found, part))
        else:
            question, answer, question_key, pair_key = found
            outcomes.append(
                Record(
                    source=row.source,
                    row=row.number,
                    part=part,
                    question=question,
                    answer=answer,
                    department=department,
                    question_key=question_key,
                    pair_key=pair_key,
                )
            )
    return outcomes


def _pair(question: Any, answer: Any, limits: Limits) -> str | tuple[str, str, int, int]:
    """Returns the cleaned texts and their keys, or the reason against them."""
    if not isinstance(question, str | None) or not isinstance(answer, str | None):
        return WRONG_TYPE
    question, answer = clean(question or ""), clean(answer or "")
    question_key, answer_key = normalise(question), normalise(answer)
    if not question_key:  # a text of punctuation alone asks nothing
        return EMPTY_QUESTION
    if not answer_key:
        return EMPTY_ANSWER
    if _LINKS.fullmatch(answer):
        return URL_ANSWER
    if len(question) < limits.min_question:
        return QUESTION_TOO_SHORT
    if len(question) > limits.max_question:
        return QUESTION_TOO_LONG
    if len(answer) < limits.min_answer:
        return ANSWER_TOO_SHORT
    if len(answer) > limits.max_answer:
        return ANSWER_TOO_LONG
    pair = f"{question_key}\n{answer_key}"  # no key holds a line break
    return question, answer, _hash(question_key, 8), _hash(pair, 16)


def _groups(value: Any) -> list[list[Any]]:
    """Returns questions as lists of paraphrases; never empty, so that no row vanishes."""
    if not isinstance(value, list):
        return [[value]]
    return [(q or [None]) if isinstance(q, list) else [q] for q in value] or [[None]]


def _members(value: Any) -> list[Any]:
    """Returns answers as a flat list, never empty."""
    return list(_flat(value)) or [None]


def _flat(value: Any) -> Iterator[Any]:
    if not isinstance(value, list):
        yield value
        return
    for member in value:
        if isinstance(member, list):
            yield from member
        else:
            yield member


def _department(value: Any) -> str:
    return "" if value is None else clean(str(value))


def _hash(text: str, size: int) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=size).digest(), "big")
