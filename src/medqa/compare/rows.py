"""The rows of ``answers.jsonl``: every question, what both said to it, and what that is worth."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medqa.compare import metrics
from medqa.compare.asked import Asked
from medqa.compare.generate import SIDES, Answer, Side
from medqa.compare.plan import Predictions, read_predictions
from medqa.compare.responses import Responses

Row = dict[str, Any]


def rows(
    asked: Sequence[Asked], pairs: Sequence[tuple[str, str]], responses: Responses
) -> list[Row]:
    """Returns a row for every question, and for the test pairs that were measured, not asked."""
    found = [
        _row(one, {side: responses.answers[side][n] for side in SIDES})
        for n, one in enumerate(asked)
    ]
    tests = {row["id"]: row for row in found if row["set"] == "test"}
    for n, (question, reference) in enumerate(pairs):
        name = f"test_{n + 1}"
        if name not in tests:
            tests[name] = _head("test", name, question, reference)
            found.append(tests[name])
        for side in SIDES:
            nats, tests[name]["nll_tokens"] = responses.losses[side][n]
            tests[name][f"{side}_nll"] = nats
    return found


def predicted_rows(files: Predictions) -> list[Row]:
    """Returns a row for every line of two files of predictions.

    Whether an answer was cut, such a file does not say.

    Raises:
        MissingInputError: One of them is not there.
        DataError: A line is no prediction, or they do not answer the same questions.
    """
    found = []
    for n, (question, reference, *said) in enumerate(read_predictions(files), 1):
        row = _head("test", f"test_{n}", question, reference)
        for side, answer in zip(SIDES, said, strict=True):
            row[side] = answer
            row[f"{side}_scores"] = metrics.row_scores(reference, answer)
        found.append(row)
    return found


def _head(name: str, number: str, question: str, reference: str | None) -> Row:
    row = {"set": name, "id": number, "question": question}
    return row if reference is None else row | {"reference": reference}


def _row(asked: Asked, answers: Mapping[Side, Answer]) -> Row:
    row = _head(asked.set, asked.id, asked.question, asked.reference)
    if asked.probe:
        row["category"] = asked.probe.category
    for side in SIDES:
        row |= _worth(asked, side, answers[side])
    return row


def _worth(asked: Asked, side: Side, answer: Answer) -> Iterator[tuple[str, Any]]:
    yield side, answer.text
    yield f"{side}_tokens", answer.tokens
    yield f"{side}_finished", answer.finished
    if asked.probe:
        judgement = asked.probe.judge(answer.text)
        yield f"{side}_passed", judgement.passed
        yield f"{side}_why", judgement.why
    if asked.set == "test" and asked.reference is not None:
        yield f"{side}_scores", metrics.row_scores(asked.reference, answer.text)
