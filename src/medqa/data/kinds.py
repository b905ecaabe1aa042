"""The two other kinds of rows: questions with a better and a worse answer, and running text.

Both are mended by what `rows` has for pairs. A preference row is a question with two answers. A
row of text is an answer to no question; what stands for the question where rows are compared, to
divide them and to keep them clear of evaluation sets, is its opening. A question with its answer
is a text too: one under the other.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xxhash import xxh3_64_intdigest

from medqa.data import rows
from medqa.data.normal import canonical_of, normalise
from medqa.data.rows import HUATUO, Keys, Kind, Known, Question, Record, Rejection, Row, Settings
from medqa.data.split import rank

if TYPE_CHECKING:
    from medqa.data.clean import Cleaner

# The stage pt of LLaMA-Factory writes the end of a text as letters (`processor/pretrain.py`, 0.9.5)
# and so needs `split_special_tokens: false`, by which these in a text become the model's own.
CONTROL = re.compile(r"\[[gs]?MASK\]|<\|(?:system|user|assistant|observation)\|>|</?s>")
OPENING_CHARS = 100  # of a text; two documents that begin alike so far are kept together

# The schemas that are known without `columns`. Of preferences: plain, the reward part of
# shibing624/medical, alpaca. Of text: JSON rows, .txt (a line is a row), then pairs.
SCHEMAS: Mapping[Kind, tuple[Keys, ...]] = {
    "pairs": HUATUO,
    "preference": (
        Keys("question", "chosen", "department", "rejected"),
        Keys("question", "response_chosen", "department", "response_rejected"),
        Keys("instruction", "chosen", "department", "rejected", "input"),
    ),
    "text": (Keys(None, "text", "department"), *HUATUO),
}

Pairs = list[tuple[Any, Any]] | str
_UNTITLED: Any = object()  # in the place of a question


def convert(
    row: Row, schemas: Sequence[Keys], settings: Settings, cleaner: "Cleaner"
) -> list[Record | Rejection]:
    """Returns one outcome for each pair of `row`, for its preference or for its text.

    Args:
        row: The raw row.
        schemas: The key names to look for.
        settings: The kind, the lengths that are allowed, the rules, the seed.
        cleaner: Made from `settings`.
    """
    way = WAYS[settings.kind]
    return way.conclude(row, *way.divide(row, schemas), settings, cleaner, Known({}, {}))


def _candidates(row: Row, schemas: Sequence[Keys]) -> tuple[Pairs, str]:
    """Returns the question with the chosen and with the rejected answer, or a reason against."""
    value = row.value
    if row.problem or not isinstance(value, dict):
        return row.problem or rows.WRONG_TYPE, ""
    keys = next((k for k in schemas if all(name in value for name in k.needed)), None)
    if keys is None:
        return rows.MISSING_KEY, ""
    question = rows.only(rows.only(value[keys.question]))
    more = value.get(keys.input) if keys.input else None
    if not isinstance(more, str | None):
        return rows.WRONG_TYPE, ""
    if isinstance(question, str) and more:
        question = f"{question}\n{more}"
    answers = rows.only(value[keys.answer]), rows.only(value[keys.rejected])
    department = rows.department_of(value.get(keys.department))
    return [(question, answer) for answer in answers], department


def _preference(
    row: Row,
    pairs: Pairs,
    department: str,
    settings: Settings,
    cleaner: "Cleaner",
    known: Known,
) -> list[Record | Rejection]:
    """Returns the record of question, chosen and rejected answer, or the reason against it.

    The rules that leave a pair out (`drop`) look at the chosen answer alone: one that breaks off
    or advertises is just what may be rejected. Mending, privacy and lengths are as of any answer.
    """
    better = pairs if isinstance(pairs, str) else pairs[:1]
    (found,) = rows.outcomes(row, better, department, settings, cleaner, known)
    if isinstance(pairs, str) or isinstance(found, Rejection):
        return [found]
    worse = known.answer(pairs[1][1], settings, cleaner)
    if isinstance(worse, str):
        reason = worse
    elif len(worse.text) < settings.limits.min_answer:
        reason = rows.ANSWER_TOO_SHORT
    elif worse.key == found.answer_key:
        reason = rows.EQUAL_ANSWERS
    else:
        place = rank(settings.seed, found.question_key, found.answer_key, worse.key)
        changes = found.changes + worse.changes
        return [
            found._replace(rejected=worse.text, rejected_key=worse.key, rank=place, changes=changes)
        ]
    return [Rejection(row.source, row.number, 0, reason, row.excerpt)]


def _texts(row: Row, schemas: Sequence[Keys]) -> tuple[Pairs, str]:
    """Returns the text of a row, or each answer with the first of its questions, or a reason.

    The other questions of an answer, its paraphrases, would only repeat the text.
    """
    value = row.value
    if row.problem or not isinstance(value, dict):
        return row.problem or rows.WRONG_TYPE, ""
    for keys in schemas:
        if keys.question is None and keys.answer in value:
            text = rows.only(value[keys.answer])
            return [(_UNTITLED, text)], rows.department_of(value.get(keys.department))
    asking = [keys for keys in schemas if keys.question is not None]
    pairs, department = rows.pairs_of(row, asking) if asking else (rows.MISSING_KEY, "")
    if isinstance(pairs, str):
        return pairs, department
    before: Any = _UNTITLED
    found = []
    for question, answer in pairs:
        if answer is not before:
            before = answer
            found.append((question, answer))
    return found, department


def _documents(
    row: Row,
    pairs: Pairs,
    department: str,
    settings: Settings,
    cleaner: "Cleaner",
    known: Known,
) -> list[Record | Rejection]:
    """Returns the record of each text, which is its answer, or the reason against it."""
    if isinstance(pairs, str):
        return [Rejection(row.source, row.number, 0, pairs, row.excerpt)]
    found: list[Record | Rejection] = []
    for part, (title, raw) in enumerate(pairs):
        made = _document(title, raw, settings, cleaner, known)
        if isinstance(made, str):
            found.append(Rejection(row.source, row.number, part, made, row.excerpt))
            continue
        question, answer = made
        found.append(
            Record(
                row.source,
                row.number,
                part,
                question.text,
                answer.text,
                department,
                question.hash,
                answer.key,
                canonical_of(question.key),
                rank(settings.seed, question.hash, answer.key),
                question.changes + answer.changes,
            )
        )
    return found


def _document(
    title: Any, raw: Any, settings: Settings, cleaner: "Cleaner", known: Known
) -> str | tuple[Question, rows.Answer]:
    """Returns what stands for the question, and the text; or the reason against it."""
    answer = known.answer(raw, settings, cleaner)
    titled = title is not _UNTITLED
    if isinstance(answer, str):
        return _reason(answer, titled)
    question = known.question(title, settings, cleaner) if titled else _opening(answer.text)
    if isinstance(question, str):
        return _reason(question, titled)
    # A text that repeats its own opening is no echo of a question.
    asked, woken = (question.text, question.woken) if titled else ("", 0)
    objection = cleaner.objection(asked, answer.text, woken | answer.woken)
    if objection:
        return objection
    if CONTROL.search(answer.text) or CONTROL.search(question.text):
        return rows.CONTROL_TOKEN
    if titled:
        answer = answer._replace(text=f"{question.text}\n{answer.text}")
    if len(answer.text) < settings.limits.min_answer:
        return rows.TEXT_TOO_SHORT
    if len(answer.text) > settings.limits.max_answer:
        return rows.TEXT_TOO_LONG
    return question, answer


def _opening(text: str) -> Question:
    """Returns the opening of a text that has a key; all of it where the opening has none."""
    opening = text[:OPENING_CHARS]
    key = normalise(opening)
    if not key:
        opening, key = text, normalise(text)
    return Question(opening, key, xxh3_64_intdigest(key.encode()), [], 0)


def _reason(reason: str, titled: bool) -> str:
    if reason in {rows.ANSWER_TOO_LONG, rows.QUESTION_TOO_LONG}:
        return rows.TEXT_TOO_LONG
    return rows.EMPTY_TEXT if reason == rows.EMPTY_ANSWER and not titled else reason


class Way(NamedTuple):
    """How rows of a kind are worked on.

    Attributes:
        divide: Row and schemas to pairs, or the reason against all, and the department.
        conclude: What `rows.outcomes` does for pairs.
    """

    divide: Callable[[Row, Sequence[Keys]], tuple[Pairs, str]]
    conclude: Callable[..., list[Record | Rejection]]


WAYS: Mapping[Kind, Way] = {
    "pairs": Way(rows.pairs_of, rows.outcomes),
    "preference": Way(_candidates, _preference),
    "text": Way(_texts, _documents),
}
