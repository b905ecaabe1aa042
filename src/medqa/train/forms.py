"""A row of training data in every form that LLaMA-Factory knows, and what may be wrong with it.

Source: ``data/parser.py`` and ``data/converter.py`` of LLaMA-Factory 0.9.5.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "messages": "conversations",
}
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}


class Row(NamedTuple):
    """What a row says.

    Attributes:
        question: What is asked first; the document in continued pretraining.
        answers: What is to be answered: the response, or the chosen and the rejected one.
        others: All other texts: the system's words, earlier turns.
    """

    question: str
    answers: tuple[str, ...]
    others: tuple[str, ...] = ()


Reader = Callable[[Mapping[str, Any]], Row | str]
"""Returns a row, or what is wrong with it."""


def reader(entry: Mapping[str, Any], stage: str) -> Reader:
    """Returns the function that reads a row for training of `stage`.

    Args:
        entry: The data set's, in the registry.
        stage: LLaMA-Factory's.
    """
    given: Mapping[str, str] = entry.get("columns", _COLUMNS)
    # Once an entry names any, the rest has none.
    columns = {part: column for part, column in given.items() if column}
    kind = _wanted(stage)
    if entry.get("formatting", "alpaca") == "alpaca":
        return _alpaca(columns, kind)
    return _messages(columns, {**_TAGS, **entry.get("tags", {})}, kind)


def _wanted(stage: str) -> str:
    """Returns what a row must answer with: ``one``, ``two``, ``judged`` or ``none``."""
    return {"sft": "one", "rm": "two", "dpo": "two", "kto": "judged"}.get(stage, "none")


def _alpaca(columns: Mapping[str, str], kind: str) -> Reader:
    prompt, query = columns.get("prompt", ""), columns.get("query", "")
    said = [columns.get(part, part) for part in _answer_parts(kind)]
    system, history = columns.get("system"), columns.get("history")
    tag = columns.get("kto_tag", "kto_tag") if kind == "judged" else None

    def read(row: Mapping[str, Any]) -> Row | str:
        question, more = row.get(prompt), row.get(query)
        if more or type(question) is not str:
            if not (isinstance(question, str | None) and isinstance(more, str | None)):
                return _unasked(row, prompt, query)
            question = "\n".join(filter(None, (question, more)))
        if not question or question.isspace():
            return _unasked(row, prompt, query)
        answers: tuple[Any, ...] = tuple([row.get(column) for column in said])
        if wrong := _wrong(said, answers):
            return wrong
        if tag and not isinstance(row.get(tag), bool):
            return f"{tag} is neither true nor false"
        if not system and not history:
            return Row(question, answers)
        others = [row.get(system)] if system else []
        others += [text for turn in row.get(history) or [] for text in turn] if history else []
        return Row(question, answers, tuple(text for text in others if isinstance(text, str)))

    return read


def _unasked(row: Mapping[str, Any], *columns: str) -> str:
    """Says why a row asks nothing."""
    for column in columns:
        if not isinstance(row.get(column), str | None):
            return f"{column} is a {type(row[column]).__name__}, no text"
    return f"{' and '.join(filter(None, columns)) or 'the question'} is empty"


def _messages(columns: Mapping[str, str], tags: Mapping[str, str], kind: str) -> Reader:
    """Reads rows of ``sharegpt`` and ``openai`` form: a list of messages with roles."""
    column, role, content = columns.get("messages", ""), tags["role_tag"], tags["content_tag"]
    pair = [columns.get(part, part) for part in ("chosen", "rejected")] if kind == "two" else []

    def read(row: Mapping[str, Any]) -> Row | str:
        turns = row.get(column)
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            return f"{column or 'messages'} is no list of messages"
        if any(not isinstance(turn.get(content), str) for turn in turns):
            return f"a message of {column} has no text under {content!r}"
        before = [turn[content] for turn in turns if turn.get(role) == tags["system_tag"]]
        turns = [turn for turn in turns if turn.get(role) != tags["system_tag"]]
        expected = (
            (tags["user_tag"], tags["observation_tag"]),
            (tags["assistant_tag"], tags["function_tag"]),
        )
        for number, turn in enumerate(turns):
            if turn.get(role) not in expected[number % 2]:
                return f"message {number + 1} of {column} is of {turn.get(role)!r}, out of turn"
        if not turns or len(turns) % 2 != bool(pair):
            return f"{column} does not end with {'a question' if pair else 'an answer'}"
        answers: list[Any] = [turns.pop()[content]] if not pair else []
        for key in pair:
            answers.append(row[key].get(content) if isinstance(row.get(key), dict) else None)
        wrong = _wrong(pair or [column], answers) if kind != "none" else ""
        texts = [turn[content] for turn in turns]
        return wrong or Row(texts[0], tuple(answers), (*before, *texts[1:]))

    return read


def _answer_parts(kind: str) -> tuple[str, ...]:
    return {"two": ("chosen", "rejected"), "none": ()}.get(kind, ("response",))


def _wrong(columns: Sequence[str], answers: Sequence[Any]) -> str:
    """Says what is wrong with the answers in `columns`, or nothing."""
    for answer in answers:
        if type(answer) is not str or not answer or answer.isspace():
            column = columns[answers.index(answer)]
            if isinstance(answer, str):
                return f"{column} is empty"
            return f"{column} is {'missing' if answer is None else f'a {type(answer).__name__}'}"
    if len(answers) == 2 and answers[0] == answers[1]:
        return f"{columns[0]} and {columns[1]} are the same"
    return ""
