"""One raw row in, question-answer pairs or the reasons against them out. Pure: no files, no state.

A pair that fails a check is never lost: it becomes a `Rejection` with the name of its reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson
from xxhash import xxh3_64_intdigest

from medqa.data.normal import canonical_of, normalise
from medqa.data.split import rank
from medqa.data.triggers import ALL

if TYPE_CHECKING:  # a data YAML is checked without it
    from medqa.data.clean import Change, Cleaner, Mended, Steps

# What the rows of a data set are: questions with answers, questions with a better and a worse
# answer, or running text. `medqa.data.kinds` has the other two.
Kind = Literal["pairs", "preference", "text"]

# Why a pair is left out; these words stand in rejects.jsonl and manifest.json. The names of the
# rules of `medqa.data.drop` stand there as well.
MALFORMED_JSON = "malformed_json"
MALFORMED_CSV = "malformed_csv"  # or another number of fields than the header has
NOT_UTF8 = "not_utf8"  # bytes of another encoding, GB18030 for instance
LINE_TOO_LONG = "line_too_long"  # for a line of text: nothing of it is parsed
FILE_CUT_SHORT = "file_cut_short"  # where a damaged .gz or .zst ends; what follows is unknown
WRONG_TYPE = "wrong_type"  # the row is no object, or a question or an answer is no string
MISSING_KEY = "missing_key"
UNPAIRED = "unpaired"  # several questions and several answers, and not as many of both
EMPTY_QUESTION = "empty_question"
EMPTY_ANSWER = "empty_answer"
URL_ANSWER = "url_answer"  # the answer is nothing but links; a rule of `drop`
QUESTION_TOO_SHORT = "question_too_short"
QUESTION_TOO_LONG = "question_too_long"
ANSWER_TOO_SHORT = "answer_too_short"
ANSWER_TOO_LONG = "answer_too_long"
EQUAL_ANSWERS = "equal_answers"  # the chosen and the rejected one, after `normal.normalise`
EMPTY_TEXT = "empty_text"
CONTROL_TOKEN = "control_token"  # of the model, in a text
TEXT_TOO_SHORT = "text_too_short"
TEXT_TOO_LONG = "text_too_long"
DUPLICATE = "duplicate"  # question and answer equal after `normal.normalise`
NOT_SAMPLED = "not_sampled"  # nothing is wrong with it: left out by max_rows or replay.share
NEAR_EVALUATION = "near_evaluation"  # its question is too near to one of an evaluation file
IN_TEST = "in_test"  # a replay pair whose question, or a paraphrase of it, is in the test split

SHOWN_CHARS = 500  # of a row's text in rejects.jsonl
# Cleaning shortens a text by tags, entities and blanks, but not by this factor: what is longer is
# refused before the work on it.
HOPELESS = 16


@dataclass(frozen=True, slots=True)
class Keys:
    """The names under which a row holds what we need.

    Attributes:
        question: Of the question or questions; None in a row of running text.
        answer: Of the answer or answers, the chosen one of a preference row, or the text.
        department: Of the medical department, None where a file has none.
        rejected: Of the worse answer of a preference row.
        input: Of what may follow its question.
    """

    question: str | None
    answer: str
    department: str | None = None
    rejected: str | None = None
    input: str | None = None

    @property
    def needed(self) -> list[str]:
        """The names that a row must have."""
        return [name for name in (self.question, self.answer, self.rejected) if name is not None]

    @property
    def optional(self) -> list[str]:
        """The names that it may have."""
        return [name for name in (self.department, self.input) if name is not None]


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
class Settings:
    """What the work on one row needs to know.

    Attributes:
        limits: The lengths that are allowed.
        rules: Names of the cleaning rules that are on.
        privacy: Replace personal data with placeholders.
        segment_questions: Cut the questions into words and drop stop words.
        seed: Of the order.
        kind: What a row is.
    """

    limits: Limits
    rules: tuple[str, ...]
    privacy: bool
    segment_questions: bool
    seed: int
    kind: Kind = "pairs"


class Row(NamedTuple):
    """One row as it stands in a file.

    Attributes:
        source: Tag of the file.
        number: Where it is, from 1: the line, or the element of a JSON array or Parquet table.
        value: The parsed row; None where it could not be parsed.
        text: Its bytes in the file, or the first of them; None in a table, which has none.
        problem: Why it could not be parsed, or None.
    """

    source: str
    number: int
    value: Any
    text: bytes | None = None
    problem: str | None = None

    @property
    def excerpt(self) -> str:
        """Its text, shortened, for the list of rejects; characters stand for their escapes."""
        text = self.text
        if text is None or (self.value is not None and b"\\u" in text):
            try:
                text = orjson.dumps(self.value, default=str)
            except orjson.JSONEncodeError:  # beyond 254 levels
                return "(nested too deeply to be shown)"
        # A character takes at most four bytes; slicing first keeps a huge line cheap.
        return text[: 4 * SHOWN_CHARS].decode("utf-8", errors="replace").strip()[:SHOWN_CHARS]


class Record(NamedTuple):
    """A pair that may be trained on or tested with.

    Attributes:
        source: Tag of the file it came from.
        row: Number of its raw row.
        part: Which pair of that row, from 0.
        question: Cleaned.
        answer: Cleaned.
        department: Medical department, empty when unknown.
        question_key: 64-bit hash (XXH3) of the normalised question.
        answer_key: The same of the answer.
        canonical: What the clustering of questions compares.
        rank: Place in the seeded order.
        changes: What cleaning changed.
        rejected: The worse answer of a preference row, cleaned.
        rejected_key: The hash of it.
    """

    source: str
    row: int
    part: int
    question: str
    answer: str
    department: str
    question_key: int
    answer_key: int
    canonical: str
    rank: int
    changes: "list[Change]"
    rejected: str = ""
    rejected_key: int = 0

    @property
    def id(self) -> str:
        """``source:row``, and ``#part`` for all but the first pair of a row."""
        return pair_id(self.source, self.row, self.part)


class Rejection(NamedTuple):
    """A pair, or a whole row that holds none, that is left out.

    Attributes:
        source: Tag of the file it came from.
        row: Number of its raw row.
        part: Which pair of that row, from 0.
        reason: One of the constants of this module, or the name of a rule of `drop`.
        raw: The row's text, shortened.
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


class Answer(NamedTuple):
    """A mended answer: its text, the hash of its key, what changed it, what it wakes."""

    text: str
    key: int
    changes: "list[Change]"
    woken: int


class Question(NamedTuple):
    """A mended question: its text, its key and the hash of that, what changed it, what it wakes."""

    text: str
    key: str
    hash: int
    changes: "list[Change]"
    woken: int


class Known(NamedTuple):
    """Texts that were worked on before, and what became of each: itself, or the reason against it.

    Attributes:
        answers: Raw answer to what is left of it.
        questions: The same of questions.
    """

    answers: dict[str, str | Answer]
    questions: dict[str, str | Question]

    def answer(self, raw: Any, settings: Settings, cleaner: "Cleaner") -> str | Answer:
        """Returns what becomes of an answer."""
        found = self.answers.get(raw) if isinstance(raw, str) else None
        return _answer(raw, settings, cleaner) if found is None else found

    def question(self, raw: Any, settings: Settings, cleaner: "Cleaner") -> str | Question:
        """Returns what becomes of a question."""
        found = self.questions.get(raw) if isinstance(raw, str) else None
        return _question(raw, settings, cleaner) if found is None else found


def pair_id(source: str, row: int, part: int) -> str:
    """Returns the id by which a pair is traced to its raw row."""
    return f"{source}:{row}" + (f"#{part}" if part else "")


def convert(
    row: Row, schemas: Sequence[Keys], settings: Settings, cleaner: "Cleaner"
) -> list[Record | Rejection]:
    """Returns one outcome for each pair of `row`, at least one.

    Questions and answers may be strings, lists, or lists of lists; the members of an inner list
    are paraphrases of one question. One answer goes with every question; as many answers as
    questions go with them one by one.

    Args:
        row: The raw row.
        schemas: The key names to look for; the first of which the row has any is taken.
        settings: The lengths that are allowed, the rules, the seed.
        cleaner: Made from `settings`; it is given because making one takes longer than using it.
    """
    return outcomes(row, *pairs_of(row, schemas), settings, cleaner, Known({}, {}))


def outcomes(
    row: Row,
    pairs: list[tuple[Any, Any]] | str,
    department: str,
    settings: Settings,
    cleaner: "Cleaner",
    known: Known,
) -> list[Record | Rejection]:
    """Returns what becomes of the pairs of a row.

    Args:
        row: The row.
        pairs: Its pairs, or the reason against all.
        department: Its department.
        settings: As in `convert`.
        cleaner: As in `convert`.
        known: What is known of texts; the others are worked on here.
    """
    if isinstance(pairs, str):
        return [Rejection(row.source, row.number, 0, pairs, row.excerpt)]
    found: list[Record | Rejection] = []
    before: Any = object()
    answer: str | Answer = ""  # paraphrases share an answer, which is cleaned once
    for part, (raw_question, raw_answer) in enumerate(pairs):
        if raw_answer is not before:
            before, answer = raw_answer, known.answer(raw_answer, settings, cleaner)
        made: str | tuple[str, int, str, list[Change]]
        said = answer
        if isinstance(said, str):
            made = said
        else:
            question = known.question(raw_question, settings, cleaner)
            said = said if isinstance(question, str) else paired(question, said, cleaner)
            made = _pair(question, said, settings, cleaner)
        if isinstance(made, str) or isinstance(said, str):
            found.append(Rejection(row.source, row.number, part, str(made), row.excerpt))
            continue
        text, key, compared, changes = made
        place = rank(settings.seed, key, said.key)
        found.append(
            Record(
                row.source,
                row.number,
                part,
                text,
                said.text,
                department,
                key,
                said.key,
                compared,
                place,
                changes,
            )
        )
    return found


def questions(row: Row, schemas: Sequence[Keys]) -> Iterator[str]:
    """Yields the questions of a row as they stand there, its answers and its faults left aside."""
    if row.problem or not isinstance(row.value, dict):
        return
    keys = next((k for k in schemas if k.question in row.value), None)
    if keys is not None:
        for group in _groups(row.value[keys.question]):
            yield from (question for question in group if isinstance(question, str))


def pairs_of(row: Row, schemas: Sequence[Keys]) -> tuple[list[tuple[Any, Any]] | str, str]:
    """Returns the questions with their answers, or the reason against all; and the department."""
    if row.problem:
        return row.problem, ""
    value = row.value
    if not isinstance(value, dict):
        return WRONG_TYPE, ""
    for keys in schemas:
        if keys.question in value or keys.answer in value:
            break
    if keys.question not in value or keys.answer not in value:
        return MISSING_KEY, ""
    department = department_of(value.get(keys.department)) if keys.department else ""
    asked, answered = only(only(value[keys.question])), only(value[keys.answer])
    if isinstance(asked, str) and isinstance(answered, str):  # most rows: no lists are made
        return [(asked, answered)], department
    groups, answers = _groups(value[keys.question]), _members(value[keys.answer])
    if len(answers) == 1:
        answers *= len(groups)
    elif len(groups) == 1:  # one question, several answers: each is a pair
        groups *= len(answers)
    if len(groups) != len(answers):
        return UNPAIRED, ""
    pairs = [(q, a) for group, a in zip(groups, answers, strict=True) for q in group]
    return pairs, department


def _answer(answer: Any, settings: Settings, cleaner: "Cleaner") -> str | Answer:
    """Returns the cleaned answer, or the reason against it."""
    if not isinstance(answer, str | None):
        return WRONG_TYPE
    mended = cleaner.alone(answer_steps(answer or "", settings, cleaner))
    if isinstance(mended, str):
        return mended
    text, changes = mended
    key = normalise(text)
    return Answer(text, xxh3_64_intdigest(key.encode()), changes, ALL) if key else EMPTY_ANSWER


def _question(question: Any, settings: Settings, cleaner: "Cleaner") -> str | Question:
    """Returns the cleaned question, or the reason against it."""
    if not isinstance(question, str | None):
        return WRONG_TYPE
    mended = cleaner.alone(question_steps(question or "", settings, cleaner))
    if isinstance(mended, str):
        return mended
    text, changes = mended
    key = normalise(text)  # a text of punctuation alone asks nothing
    if not key:
        return EMPTY_QUESTION
    return Question(text, key, xxh3_64_intdigest(key.encode()), changes, ALL)


def answer_steps(
    answer: str, settings: Settings, cleaner: "Cleaner", woken: int | None = None
) -> "Steps[str | Mended]":
    """Returns the mended answer and what changed it, or the reason against it."""
    # First of all, so that `links` need not look at what else is wrong with such a row.
    if cleaner.refuses_link(answer):
        return URL_ANSWER
    most = settings.limits.max_answer
    if len(answer) > HOPELESS * most:
        return ANSWER_TOO_LONG
    mended = yield from cleaner.answer_steps(answer, woken)
    return ANSWER_TOO_LONG if len(mended[0]) > most else mended


def question_steps(
    question: str, settings: Settings, cleaner: "Cleaner", woken: int | None = None
) -> "Steps[str | Mended]":
    """Returns the mended question and what changed it, or the reason against it."""
    most = settings.limits.max_question
    if len(question) > HOPELESS * most:
        return QUESTION_TOO_LONG
    mended = yield from cleaner.question_steps(question, woken)
    return QUESTION_TOO_LONG if len(mended[0]) > most else mended


def paired(question: Question, answer: Answer, cleaner: "Cleaner") -> Answer:
    """Returns what is left of an answer beside its question; `answer` itself where that is all."""
    text, changes = cleaner.pair(question.text, answer.text)
    if not changes:
        return answer
    key = xxh3_64_intdigest(normalise(text).encode())
    return Answer(text, key, answer.changes + changes, answer.woken)


def _pair(
    question: str | Question, answer: Answer, settings: Settings, cleaner: "Cleaner"
) -> "str | tuple[str, int, str, list[Change]]":
    """Returns question, hash of its key, what is compared, and changes; or the reason against."""
    if isinstance(question, str):
        return question
    limits, text, found = settings.limits, question.text, question.hash
    objection = cleaner.objection(text, answer.text, question.woken | answer.woken)
    if objection:
        return objection
    if len(text) < limits.min_question:
        return QUESTION_TOO_SHORT
    if len(answer.text) < limits.min_answer:
        return ANSWER_TOO_SHORT
    compared = canonical_of(question.key)
    if settings.segment_questions:
        from medqa.data.words import segment  # loads jieba

        text = segment(text)
        found = xxh3_64_intdigest(normalise(text).encode())
    changes = question.changes + answer.changes
    return text, found, compared, changes


def only(value: Any) -> Any:
    """Returns the member of a list of one, anything else as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _groups(value: Any) -> list[list[Any]]:
    """Returns questions as lists of paraphrases; never empty, so that no row vanishes."""
    if not isinstance(value, list):
        return [[value]]
    return [(q or [None]) if isinstance(q, list) else [q] for q in value] or [[None]]


def _members(value: Any) -> list[Any]:
    """Returns answers as a flat list, never empty."""
    if not isinstance(value, list):
        return [value]
    flat: list[Any] = []
    for member in value:
        if isinstance(member, list):
            flat += member
        else:
            flat.append(member)
    return flat or [None]


def department_of(value: Any) -> str:
    """Returns the department on one line; empty when there is none or it is no plain value."""
    if not isinstance(value, str | int | float):
        return ""
    if isinstance(value, str) and value.isprintable():
        return " ".join(value.split())
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
