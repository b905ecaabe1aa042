"""The sample data: a few hundred raw rows in every Huatuo-26M schema, generated from one table.

Synthetic and not medical advice. Every fact is asked in several phrasings, some rows carry the
dirt that the real sets carry, and two phrasings of each fact are kept out for the probes.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medqa.files import atomic_file

SEED = 26
_WIDE = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ,?", "ＡＢＣＤＥＦＧＨＩＪＫＬＭＮＯＰＱＲＳＴＵＶＷＸＹＺ，？"
)


@dataclass(frozen=True)
class Fact:
    """One checkable fact.

    Attributes:
        kind: The attribute or relation asked for, ``use`` or ``capital``.
        subject: What is asked about.
        value: What the answer must name.
        department: The medical department, empty for a general fact.
        phrasings: The questions that may be trained on.
        held_out: The questions that only probes ask.
        answers: Ways to say it.
    """

    kind: str
    subject: str
    value: str
    department: str
    phrasings: list[str]
    held_out: list[str]
    answers: list[str]


def write(table: Path, folder: Path) -> list[Path]:
    """Writes every sample file of `table` into `folder`; the same bytes at every call.

    Returns:
        The files: five raw Huatuo files, general facts, neutral text, two sets of probes,
        preferences and running text.
    """
    values = yaml.safe_load(table.read_text(encoding="utf-8"))
    rng = random.Random(SEED)
    medical, general = list(_medical(values, rng)), list(_general(values, rng))
    contents: dict[str, list[str]] = dict(_huatuo(medical, rng))
    contents["general.jsonl"] = [
        _json(question=question, answer=fact.answers[0])
        for fact in general
        for question in fact.phrasings
    ]
    sentences = _sentences(values["neutral"], rng)
    contents["neutral.txt"] = sentences + _word_lists(medical + general, rng)
    contents["probes_medical.jsonl"] = _probes(medical)
    contents["probes_general.jsonl"] = _probes(general)
    # Drawn by themselves, so that what was there before them stays as it was.
    contents["preference.jsonl"] = _preferences(medical, values["preference"], random.Random(SEED))
    contents["corpus.jsonl"] = [
        _json(text=text.format(**drug), department="药剂科")
        for text in values["texts"]
        for drug in values["drugs"]
    ]
    for name, lines in contents.items():
        with atomic_file(folder / name) as out:
            out.write("".join(f"{line}\n" for line in lines).encode())
    return [folder / name for name in contents]


def _medical(values: dict[str, Any], rng: random.Random) -> Iterator[Fact]:
    for kind, form in values["medical"].items():
        for drug in values["drugs"]:
            if kind in drug:
                yield _fact(kind, form, drug["x"], drug[kind], values, rng)


def _general(values: dict[str, Any], rng: random.Random) -> Iterator[Fact]:
    for kind, form in values["general"].items():
        for subject, value in form["facts"].items():
            yield _fact(kind, form, subject, value, values, rng)


def _fact(
    kind: str, form: dict[str, Any], x: str, y: str, values: dict[str, Any], rng: random.Random
) -> Fact:
    def fill(texts: list[str]) -> list[str]:
        return [text.format(x=x, y=y) for text in texts]

    asked = [o + p for o in values["openings"] for p in form["phrasings"]]
    trained = rng.sample([q for q in asked if q not in form["held_out"]], values["rows_per_fact"])
    return Fact(
        kind=kind,
        subject=x,
        value=y,
        department=form.get("department", ""),
        phrasings=fill(trained),
        held_out=fill(form["held_out"]),
        answers=fill(form["answers"]),
    )


def _huatuo(facts: list[Fact], rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Deals the phrasings of each fact over the raw schemas, and plants the dirt."""
    encyclopedia, graph, plain, lite = [], [], [], []
    for number, fact in enumerate(facts, 1):
        asked = fact.phrasings
        answers = [_dirty(rng.choice(fact.answers), rng) for _ in asked]
        encyclopedia += [
            _json(questions=[asked[0:2]], answers=[answers[0]]),
            _json(questions=[[asked[2]]], answers=[answers[2]]),
        ]
        graph += [
            _json(questions=[q], answers=[a]) for q, a in zip(asked[3:5], answers[3:5], strict=True)
        ]
        plain.append(_json(questions=asked[5], answers=answers[5]))
        lite += [
            _json(
                id=number * 10 + k, question=asked[k], answer=answers[k], score=5,
                label=fact.department, related_diseases=None,
            )
            for k in (6, 7)
        ]  # fmt: skip
    consultation = [
        _json(questions=[fact.phrasings[0]], answers=[f"https://example.org/question/{i}.html"])
        for i, fact in enumerate(facts[:12])
    ]
    # Rows that must end in rejects: said twice, nothing said, cut off in the middle, not a string.
    first = facts[0]
    encyclopedia += [encyclopedia[0], _json(questions=[[first.phrasings[0]]], answers=[""])]
    graph += [graph[3].replace("？", "?"), graph[5][: len(graph[5]) // 2]]
    plain += [
        "{'questions': 'single quotes are not JSON'}",
        _json(questions="", answers="多喝水。"),
    ]
    lite += [_json(id=1, question=first.phrasings[1], answer=38.5, score=1, label="内科")]
    yield "huatuo_encyclopedia_qa.jsonl", encyclopedia
    yield "huatuo_knowledge_graph_qa.jsonl", graph
    yield "huatuo26M-testdatasets.jsonl", plain
    yield "Huatuo26M-Lite.jsonl", lite
    yield "huatuo_consultation_qa.jsonl", consultation


def _preferences(facts: list[Fact], form: dict[str, Any], rng: random.Random) -> list[str]:
    """A right answer and a worse one to each fact, the worse of three sorts, and the dirt."""

    def row(fact: Fact, rejected: str) -> str:
        return _json(
            question=rng.choice(fact.phrasings),
            chosen=rng.choice(fact.answers),
            rejected=rejected,
            department=fact.department,
        )

    found = []
    for number, fact in enumerate(facts):
        others = [f.value for f in facts if f.kind == fact.kind and f.value != fact.value]
        wrong = rng.choice(fact.answers).replace(fact.value, rng.choice(others))
        found.append(row(fact, rng.choice(form["short"]) if number % 8 == 7 else wrong))
        if fact.kind in form["unsafe"]:
            found.append(row(fact, rng.choice(form["unsafe"][fact.kind]).format(x=fact.subject)))
    # Rows that must end in rejects: no worse answer, none that differs, said twice.
    first = facts[0]
    return [
        *found,
        _json(question=first.phrasings[0], chosen=first.answers[0]),
        _json(question=first.phrasings[0], chosen=first.answers[0], rejected=""),
        _json(question=first.phrasings[0], chosen="看医生。", rejected="看医生"),
        found[0],
    ]


def _dirty(answer: str, rng: random.Random) -> str:
    """Returns `answer`, in one of seven cases with the dirt of real rows."""
    dirt = [
        f"您好，{answer}",
        f"病情分析：{answer}",
        f"{answer}祝您早日康复！",
        f"{answer}<br/>",
        answer.removesuffix("。"),
        answer.translate(_WIDE),
        f"{answer}&nbsp;咨询电话：010-00000000",
    ]
    return rng.choice(dirt) if rng.random() < 1 / 7 else answer


def _sentences(form: dict[str, list[str]], rng: random.Random, count: int = 200) -> list[str]:
    slots = {key: options for key, options in form.items() if key != "sentences"}
    return [
        rng.choice(form["sentences"]).format(**{k: rng.choice(v) for k, v in slots.items()})
        for _ in range(count)
    ]


def _word_lists(facts: list[Fact], rng: random.Random, count: int = 500) -> list[str]:
    """Words in random company: a base model has met them, and learns to repeat, but no fact.

    Each list is of three subjects, so none of them stands beside a value of its own.
    """
    lists: list[str] = []
    while len(lists) < count:
        drawn = rng.sample(facts, 3)
        if len({fact.subject for fact in drawn}) == 3:
            words = [rng.choice((fact.subject, fact.value)) for fact in drawn]
            lists.append("，".join([*words, rng.choice(words)]) + "。")
    return lists


def _probes(facts: list[Fact]) -> list[str]:
    """One line a held-out question; an answer must name `expect` and nothing else of its `kind`."""
    return [
        _json(kind=fact.kind, question=question, expect=fact.value)
        for fact in facts
        for question in fact.held_out
    ]


def _json(**row: Any) -> str:
    return json.dumps(row, ensure_ascii=False)
