"""Every row of a recipe's data, read once: is it valid, is it asked in test, what does it hold."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medqa.errors import DataError
from medqa.paths import shown
from medqa.train.controls import Controls
from medqa.train.findings import Findings
from medqa.train.forms import Reader, Row
from medqa.train.registered import Registered, lines, remake

SAMPLE = 200
"""Rows that are kept to be encoded, at least; evenly from the whole file."""

UNFINISHED = 0.001
"""Share of answers ending in a comma or a colon above which the data is doubtful."""

_COMMAS = frozenset("，,、：:")
_EXAMPLES = 3
_DIGIT, _MARKS = re.compile(r"\d"), re.compile(r"[\W_]+")
# What stands between two digits stays, as 1.5 is not 15.
_MARKS_BUT_BETWEEN_DIGITS = re.compile(r"(?<!\d)[\W_]+|[\W_]+(?!\d)")
_HAN = re.compile("[\u4e00-\u9fff]{4}")


@dataclass
class Scan:
    """What the rows of a data set are.

    Attributes:
        rows: How many there are.
        wrong: How many cannot be trained on.
        wrong_examples: The first of them, as ``line 3: output is empty``.
        asked: Line, question and split of those that a test or validation split asks too.
        special: Line and token of those in whose text the name of a control token stands.
        unfinished: How many answers end in a comma or a colon.
        sample: Some good rows as they stand in the file, in their order.
    """

    rows: int = 0
    wrong: int = 0
    wrong_examples: list[str] = field(default_factory=list)
    asked: list[tuple[int, str, str]] = field(default_factory=list)
    special: list[tuple[int, str]] = field(default_factory=list)
    unfinished: int = 0
    sample: list[Mapping[str, Any]] = field(default_factory=list)

    def keep(self, row: Mapping[str, Any]) -> None:
        """Takes a row into the sample, thinning it out when it has grown too large."""
        if (self.rows - 1) % self._step == 0:
            self.sample.append(row)
            if len(self.sample) >= 2 * SAMPLE:
                self.sample = self.sample[::2]
                self._step *= 2

    _step: int = 1


def key(question: str) -> str:
    """Returns what two questions have in common that say the same words and numbers."""
    marks = _MARKS_BUT_BETWEEN_DIGITS if _DIGIT.search(question) else _MARKS
    return unicodedata.normalize("NFKC", marks.sub("", question)).casefold()


class Held:
    """Questions that must not be asked in training, and whose they are.

    Args:
        splits: Key of each question, to the name of its split.
    """

    def __init__(self, splits: Mapping[str, str]) -> None:
        self._splits = splits
        # A key keeps Han characters as they are, so most questions are told apart by their first.
        self._begins = {key[:4] for key in splits}

    def asked_in(self, row: Row) -> str | None:
        """Returns the name of the split that asks what `row` asks; None if none does.

        Of a document each line may be a question.
        """
        if not self._splits:
            return None
        for question in (row.question,) if row.answers else row.question.splitlines():
            if question[:4] in self._begins or not _HAN.match(question):
                split = self._splits.get(key(question))
                if split:
                    return split
        return None


def questions(files: Sequence[Path], read: Reader) -> set[str]:
    """Returns the keys of all questions in `files`; rows that cannot be read ask none."""
    import orjson

    asked = set()
    for file in files:
        for _, line in lines(file):
            try:
                row = read(orjson.loads(line) if isinstance(line, bytes) else line)
            except (orjson.JSONDecodeError, AttributeError):
                continue
            if isinstance(row, Row):
                asked.add(key(row.question))
    asked.discard("")
    return asked


def scan(data: Registered, stage: str, held: Held, controls: Controls) -> Scan:
    """Reads every row of a data set.

    Args:
        data: The data set.
        stage: LLaMA-Factory's stage, which decides what a row must hold.
        held: The questions that must not be in it.
        controls: The control tokens of the model.

    Raises:
        DataError: A file as a whole cannot be read.
    """
    import orjson

    result, read = Scan(), data.reader(stage)
    for file in data.files:
        hints = controls.hints(file)
        for number, line in lines(file):
            result.rows += 1
            try:
                raw = orjson.loads(line) if isinstance(line, bytes) else line
            except orjson.JSONDecodeError as error:
                row: Row | str = f"not JSON ({error})"
            else:
                row = read(raw) if isinstance(raw, dict) else f"a {type(raw).__name__}, no row"
            if isinstance(row, str):
                result.wrong += 1
                if len(result.wrong_examples) < _EXAMPLES:
                    result.wrong_examples.append(f"line {number}: {row}")
                continue
            result.keep(raw)
            if split := held.asked_in(row):
                result.asked.append((number, row.question, split))
            for hint in hints:
                if not isinstance(line, bytes) or hint in line:
                    if token := controls.find(row):
                        result.special.append((number, token))
                    break
            if row.answers and row.answers[0].rstrip()[-1] in _COMMAS:
                result.unfinished += 1
    return result


def look(
    data: Registered,
    stage: str,
    held: Held,
    controls: Controls,
    found: Findings,
    *,
    split: bool,
) -> Scan | None:
    """Reads every row of a data set and tells what it found.

    Args:
        data: The data set.
        stage: LLaMA-Factory's stage.
        held: The questions of held-out splits.
        controls: The control tokens of the model.
        found: Where it goes.
        split: The recipe has ``split_special_tokens: true``.

    Returns:
        None if its files cannot be read.
    """
    preference = stage in {"rm", "dpo"}
    if data.ranking != preference:
        wanted, cure = ("pairs of answers", "true") if preference else ("one answer", "false")
        found.problem(
            "data",
            f"stage {stage} wants {wanted} a row, and {data.name!r} is registered otherwise",
            f"another data set, or ranking: {cure} in its entry",
        )
        return None
    try:
        seen = scan(data, stage, held, controls)
    except DataError as error:
        found.problem("data", str(error), remake(data.name, again=True))
        return None
    where = ", ".join(shown(file) for file in data.files)
    if not seen.rows:
        found.problem("data", f"{where} holds no row", remake(data.name, again=True))
    elif seen.wrong:
        told = "; ".join(seen.wrong_examples)
        found.problem(
            "data",
            f"{seen.wrong:,} of {seen.rows:,} rows of {where} cannot be trained on: {told}",
            f"mend those lines, or {remake(data.name, again=True)}",
        )
    else:
        found.ok("data", f"{data.name}: {seen.rows:,} rows, all valid")
    _tell_leak(data, seen, found)
    _tell_special(data, seen, found, split=split)
    if seen.unfinished > UNFINISHED * seen.rows:
        found.warning(
            "answers",
            f"{seen.unfinished:,} of {seen.rows:,} answers of {data.name!r} end in a comma or a "
            "colon: cut off, and the model learns to stop there",
            f"leave them out or mend them: {remake(data.name, again=True)}",
        )
    return seen


def _tell_leak(data: Registered, seen: Scan, found: Findings) -> None:
    if not seen.asked:
        return
    number, question, _ = seen.asked[0]
    splits = {split for _, _, split in seen.asked}
    cure = remake(data.name, again=True)
    folders = {shown(file.parent) for file in data.files}
    if elsewhere := sorted(s for s in splits if "/" in s and str(Path(s).parent) not in folders):
        cure = f"name {', '.join(elsewhere)} under decontaminate in its data YAML, then {cure}"
    found.problem(
        "split",
        f"{len(seen.asked):,} rows of {data.name!r} ask what {' and '.join(sorted(splits))} asks "
        f"(line {number}: {question[:30]}): the score would mean nothing",
        cure,
    )


def _tell_special(data: Registered, seen: Scan, found: Findings, *, split: bool) -> None:
    if not seen.special:
        return
    number, token = seen.special[0]
    text = f"{len(seen.special):,} rows of {data.name!r} hold the name of a control token (line "
    text += f"{number}: {token})"
    if split:
        found.ok("text", f"{text}; harmless, split_special_tokens makes it plain text")
    else:
        found.problem(
            "text", f"{text}, which would be trained as the token", "split_special_tokens=true"
        )
