"""Questions whose answers can be checked: their files, and the judgement of an answer.

A probe YAML (``configs/probes/``) holds a title, synonyms and probes; a term of a probe is written

- ``a|b``: a or b;
- ``a…b``: a, and later b in the same clause (``...`` is the same);
- ``x=a|b``: x is named as being a or b (西地那非（商品名希爱力）).

A name under ``synonyms`` stands for all of its list in every term, whatever the answer writes. An
answer passes if every term of ``must_all`` and one of ``must_any`` is asserted, none of
``must_not`` is claimed, one of ``on_topic`` and none of ``off_topic`` is mentioned. What these
words mean is told in `medqa.compare.claims`. An empty answer fails.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from medqa.compare import faults, lines
from medqa.compare.claims import Term, Text
from medqa.compare.spelling import Names, fold
from medqa.config import Strict, read_yaml, validate
from medqa.errors import ConfigError, DataError
from medqa.paths import resolve, shown

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Terms = Annotated[tuple[str, ...], Field(default=())]


class Title(Strict):
    """What a set is called in the report."""

    zh: Words
    en: Words


class ProbeEntry(Strict):
    """A probe as it is written; see the module for the terms.

    Attributes:
        id: Unique in its file, snake_case.
        category: The unit of the report's matrix and of the gate.
        question: What the model is asked.
        must_all: Terms of which each must be asserted.
        must_any: Terms of which one must be asserted.
        must_not: Terms of which none may be claimed.
        on_topic: Terms of which one must be mentioned, negated or not.
        off_topic: Terms of which none may even be mentioned.
        reason: Why an answer must be so, in a sentence; for the reader.
        source: Where that stands (package insert, guideline, year); for the reader.
    """

    id: Identifier
    category: Identifier
    question: Words
    must_all: Terms
    must_any: Terms
    must_not: Terms
    on_topic: Terms
    off_topic: Terms
    reason: Words
    source: Words


class ProbeFile(Strict):
    """A probe YAML.

    Attributes:
        title: What the set is called in the report.
        categories: Every category of the probes to its Chinese name.
        synonyms: A name to others that stand for the same.
        probes: At least one.
    """

    title: Title
    categories: dict[Identifier, Words]
    synonyms: dict[str, tuple[str, ...]] = Field(default={})
    probes: Annotated[list[ProbeEntry], Field(min_length=1)]


@dataclass(frozen=True)
class Judgement:
    """What became of an answer.

    Attributes:
        passed: Whether it passed.
        why: If not, the first term that failed and the words of the answer around it; else empty.
    """

    passed: bool
    why: str


@dataclass(frozen=True)
class Probe:
    """A question whose answer can be checked; the attributes are those of `ProbeEntry`."""

    id: str
    category: str
    question: str
    must_all: tuple[Term, ...] = ()
    must_any: tuple[Term, ...] = ()
    must_not: tuple[Term, ...] = ()
    on_topic: tuple[Term, ...] = ()
    off_topic: tuple[Term, ...] = ()
    reason: str = ""
    source: str = ""
    names: Names = field(default_factory=lambda: Names({}))

    def judge(self, answer: str) -> Judgement:
        """Says whether `answer` passes, and why it does not."""
        text = Text(answer, self.names, self.question)
        why = next(self._failures(text), "")
        return Judgement(not why, why)

    def _failures(self, text: Text) -> Iterator[str]:
        if not text.folded.text:
            yield "the answer is empty"
        for term in self.must_not:
            if hit := term.claimed(text):
                yield f"must_not {hit.word}: '{text.quote(hit.span)}'"
        for term in self.off_topic:
            if hit := term.mentioned(text):
                yield f"off_topic {hit.word}: '{text.quote(hit.span)}'"
        for term in self.must_all:
            if not term.asserted(text):
                yield f"must_all {_brief([term])}: {_instead([term], text)}"
        if self.must_any and not any(term.asserted(text) for term in self.must_any):
            yield f"must_any {_brief(self.must_any)}: {_instead(self.must_any, text)}"
        if self.on_topic and not any(term.mentioned(text) for term in self.on_topic):
            yield f"on_topic {_brief(self.on_topic)}: not mentioned"


@dataclass(frozen=True)
class ProbeSet:
    """The probes of one file.

    Attributes:
        name: The file's name without its ending.
        title: Language (``zh``, ``en``) to what the report calls the set.
        categories: Category to its Chinese name; empty where the file gives none.
        probes: In the order of the file.
    """

    name: str
    title: Mapping[str, str]
    categories: Mapping[str, str]
    probes: tuple[Probe, ...]


def read_probes(path: str) -> ProbeSet:
    """Reads a probe YAML, or a ``.jsonl`` of ``{"kind": …, "question": …, "expect": …}`` lines.

    In the short form an answer must assert what is expected, and claim none of the values that are
    expected by other probes of its kind.

    Raises:
        MissingInputError: There is no such file.
        ConfigError: Everything that is wrong with the YAML.
        DataError: A line is something else; names the line. Or there is none.
    """
    file = resolve(path)
    lines.require(file)
    return _from_lines(file) if file.suffix == ".jsonl" else _from_yaml(file)


def _from_yaml(file: Path) -> ProbeSet:
    values = read_yaml(file)
    problems = []
    try:
        found = validate(values, ProbeFile, shown(file))
    except ConfigError as error:
        problems = [_with_id(problem, values.get("probes")) for problem in error.problems]
    problems += faults.of_synonyms(values.get("synonyms"))
    problems += faults.of_probes(values.get("probes"), values.get("synonyms"))
    problems += faults.of_categories(values.get("categories"), values.get("probes"))
    if problems:
        raise ConfigError(shown(file), problems)
    names = Names.of(found.synonyms)
    probes = []
    for entry in found.probes:
        lists: dict[str, Any] = {
            key: tuple(Term.parse(term, names) for term in getattr(entry, key))
            for key in faults.LISTS
        }
        plain = entry.model_dump(exclude=set(faults.LISTS))
        probes.append(Probe(**plain, **lists, names=names))
    return ProbeSet(file.stem, found.title.model_dump(), found.categories, tuple(probes))


def _with_id(problem: str, probes: Any) -> str:
    """Returns `problem` with a probe's id in the place of its number."""

    def named(match: re.Match[str]) -> str:
        probe = probes[int(match[1])]
        return f"probes.{probe.get('id', match[1]) if isinstance(probe, dict) else match[1]}"

    return re.sub(r"\bprobes\.(\d+)", named, problem)


def _from_lines(file: Path) -> ProbeSet:
    rows = []
    for number, row in lines.rows(file, ("kind", "question", "expect")):
        if not fold(row["expect"]).text:
            raise DataError(
                f"{shown(file)} line {number}: 'expect' is empty, so any answer would pass"
            )
        rows.append(row)
    if not rows:
        raise DataError(f"{shown(file)} has no probes; add lines to it, or take it out of 'probes'")
    values: dict[str, set[str]] = {}
    for row in rows:
        values.setdefault(row["kind"], set()).add(row["expect"])
    probes = []
    for number, row in enumerate(rows, 1):
        expect = fold(row["expect"]).text
        # A value that is part of the expected one is named with it, and no mistake.
        others = sorted(v for v in values[row["kind"]] if fold(v).text not in expect)
        probes.append(
            Probe(
                id=f"{row['kind']}_{number}",
                category=row["kind"],
                question=row["question"],
                must_all=(Term.literal(row["expect"]),),
                must_not=tuple(map(Term.literal, others)),
            )
        )
    return ProbeSet(file.stem, {"zh": file.stem, "en": file.stem}, {}, tuple(probes))


def _brief(terms: Sequence[Term]) -> str:
    """Returns what terms ask for, cut where it gets long."""
    words = ", ".join(term.text for term in terms)
    return words if len(words) <= _BRIEF else words[:_BRIEF] + "…"


def _instead(terms: Iterable[Term], text: Text) -> str:
    """Returns what a text says of terms that it does not assert."""
    for term in terms:
        if hit := term.mentioned(text):
            return f"{hit.word} is not asserted in '{text.quote(hit.span)}'"
    return "not said"


_BRIEF = 60
