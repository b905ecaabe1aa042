"""The compare YAML, and what it asks the models."""

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from medqa.config import Strict
from medqa.errors import DataError, MissingInputError
from medqa.paths import resolve, shown

Count = Annotated[int, Field(ge=1)]


class ComparePlan(Strict):
    """A compare YAML.

    Attributes:
        model_name_or_path: The base model's folder.
        adapter_name_or_path: The adapter that makes it the tuned one.
        test_file: Held-out pairs in alpaca form; the loss is measured on their answers.
        test_rows: How many of them, from the first on; the file is in seeded order.
        cutoff_len: Longest question with answer, in tokens; the loss of what is beyond is not
            measured.
        probes: Sets of questions with a checkable answer: a name to a JSON lines file.
        questions: Asked of both and shown side by side, not judged.
        max_new_tokens: Longest answer, in tokens.
        batch_size: Questions answered at a time.
        output_dir: Where the answers and the report go.
    """

    model_name_or_path: str
    adapter_name_or_path: str
    test_file: str
    test_rows: Count
    cutoff_len: Count
    probes: dict[str, str]
    questions: list[str]
    max_new_tokens: Count
    batch_size: Count
    output_dir: str


@dataclass(frozen=True)
class Probe:
    """A question whose answer can be checked.

    Attributes:
        kind: What is asked for; probes of one kind ask for values of the same sort.
        question: What the model is asked.
        expect: What the answer must name.
        others: Values of the other probes of the kind: an answer that names one is wrong.
    """

    kind: str
    question: str
    expect: str
    others: frozenset[str]

    def passes(self, answer: str) -> bool:
        """Says whether `answer` names the expected value and none of the others."""
        said = plain(answer)
        return plain(self.expect) in said and not any(plain(o) in said for o in self.others)


def plain(text: str) -> str:
    """Returns `text` with full-width forms made half-width and without white space."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def read_probes(path: str) -> list[Probe]:
    """Reads ``{"kind": …, "question": …, "expect": …}`` lines.

    Raises:
        MissingInputError: There is no such file.
        DataError: A line is something else; names the line. Or there is none.
    """
    rows = list(_rows(path, ("kind", "question", "expect")))
    if not rows:
        raise DataError(f"{path} has no probes; add lines to it, or take it out of 'probes'")
    for number, row in enumerate(rows, 1):
        if not plain(row["expect"]):
            raise DataError(f"{path} line {number}: 'expect' is empty, so any answer would pass")
    values: dict[str, set[str]] = {}
    for row in rows:
        values.setdefault(row["kind"], set()).add(row["expect"])
    return [
        Probe(
            kind=row["kind"],
            question=row["question"],
            expect=row["expect"],
            # A value that is part of the expected one is named with it, and no mistake.
            others=frozenset(
                v for v in values[row["kind"]] if plain(v) not in plain(row["expect"])
            ),
        )
        for row in rows
    ]


def read_pairs(path: str, count: int) -> list[tuple[str, str]]:
    """Returns question and answer of the first `count` rows of an alpaca file.

    Raises:
        MissingInputError: There is no such file.
        DataError: A line is no such row, or there is none.
    """
    pairs = []
    for row in _rows(path, ("instruction", "output")):
        question = "\n".join(part for part in (row["instruction"], row.get("input")) if part)
        pairs.append((question, row["output"]))
        if len(pairs) == count:
            break
    if not pairs:
        raise DataError(f"{path} has no rows to measure a test loss on")
    return pairs


def _rows(path: str, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    file = resolve(path)
    if not file.is_file():
        raise MissingInputError(f"{shown(file)} does not exist; run: {_maker(file)}")
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError:  # also what is not UTF-8
                row = None
            if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in keys):
                raise DataError(
                    f"{shown(file)} line {number}: expected an object with the strings "
                    f"{', '.join(keys)}, found {line.decode(errors='replace').strip()[:80]!r}"
                )
            yield row


def _maker(file: Path) -> str:
    if file.parent == resolve("data/sample"):
        return "python scripts/make_sample.py"
    if file.parent.parent == resolve("data/processed"):
        return f"python scripts/convert.py configs/data/{file.parent.name}.yaml"
    return "ls data/sample data/processed/*, and name one of these files in the YAML"
