"""The probe sets that come with medqa, held against written answers."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from medqa.compare.probes import Probe, ProbeSet, read_probes
from medqa.paths import project_root

ANSWERS = Path(__file__).parent / "answers"
LEAST_PROBES = {"drug_facts": 60, "emergencies": 30, "general": 60}
LEAST_ANSWERS = 10
LISTS = ("must_all", "must_any", "must_not", "on_topic", "off_topic")
# Whose answers cannot answer whose questions: the sets speak of different things.
FAR = [
    ("general", "emergencies"),
    ("general", "drug_facts"),
    ("emergencies", "general"),
    ("drug_facts", "general"),
]


@cache
def probe_set(name: str) -> ProbeSet:
    return read_probes(f"configs/probes/{name}.yaml")


@cache
def written(name: str) -> dict[str, dict[str, list[str]]]:
    return yaml.safe_load((ANSWERS / f"{name}.yaml").read_text(encoding="utf-8"))


def probes(name: str) -> dict[str, Probe]:
    return {probe.id: probe for probe in probe_set(name).probes}


def answers() -> list:
    """Every written answer, as (set, probe, verdict, answer)."""
    return [
        pytest.param(name, probe, verdict, answer, id=f"{name}-{probe}-{verdict}{number}")
        for name in LEAST_PROBES
        if (ANSWERS / f"{name}.yaml").is_file()
        for probe, verdicts in written(name).items()
        for verdict, texts in verdicts.items()
        for number, answer in enumerate(texts, 1)
    ]


@pytest.mark.parametrize(("name", "probe", "verdict", "answer"), answers())
def test_the_written_answer_is_judged_right(
    name: str, probe: str, verdict: str, answer: str
) -> None:
    judgement = probes(name)[probe].judge(answer)
    assert judgement.passed == (verdict == "pass"), f"{answer}\n{judgement.why}"
    assert bool(judgement.why) != judgement.passed


def test_every_probe_file_has_written_answers_and_is_counted_here() -> None:
    configs = {file.name for file in (project_root() / "configs/probes").iterdir()}
    assert configs == {f"{name}.yaml" for name in LEAST_PROBES}
    assert {file.name for file in ANSWERS.iterdir()} == configs


@pytest.mark.parametrize("name", LEAST_PROBES)
def test_there_are_enough_probes_and_each_says_why_and_from_where(name: str) -> None:
    found = probe_set(name).probes
    assert len(found) >= LEAST_PROBES[name]
    for probe in found:
        assert probe.reason and probe.source, probe.id
    questions = Counter(probe.question for probe in found)
    assert [q for q, count in questions.items() if count > 1] == []


@pytest.mark.parametrize("name", LEAST_PROBES)
def test_every_probe_and_every_category_is_tried(name: str) -> None:
    known = probes(name)
    assert written(name).keys() == known.keys()
    counts: Counter[tuple[str, str]] = Counter()
    for probe, verdicts in written(name).items():
        assert set(verdicts) == {"pass", "fail"}, probe
        for verdict, texts in verdicts.items():
            assert len(texts) == len(set(texts)) > 0, f"{probe} {verdict}"
            counts[known[probe].category, verdict] += len(texts)
    categories = {probe.category for probe in known.values()}
    few = {
        (category, verdict): counts[category, verdict]
        for category in categories
        for verdict in ("pass", "fail")
        if counts[category, verdict] < LEAST_ANSWERS
    }
    assert few == {}


@pytest.mark.parametrize("name", ["emergencies", "general"])
def test_every_line_of_a_probe_decides_some_written_answer(name: str) -> None:
    lines: Counter[tuple[str, str]] = Counter()
    decided: Counter[tuple[str, str]] = Counter()
    for probe in probe_set(name).probes:
        texts = written(name)[probe.id]
        for kind in LISTS:
            terms = getattr(probe, kind)
            for place, term in enumerate(terms):
                without = replace(probe, **{kind: terms[:place] + terms[place + 1 :]})
                # A line that several probes share (a YAML anchor) need only count in one of them.
                lines[kind, term.text] += 1
                decided[kind, term.text] += any(
                    without.judge(answer).passed != (verdict == "pass")
                    for verdict, answers in texts.items()
                    for answer in answers
                )
    assert [line for line in lines if not decided[line]] == []


@pytest.mark.parametrize("nothing", ["", " \n", "。", "？！……"])
@pytest.mark.parametrize("name", LEAST_PROBES)
def test_saying_nothing_passes_no_probe(name: str, nothing: str) -> None:
    assert [p.id for p in probe_set(name).probes if p.judge(nothing).passed] == []


@pytest.mark.parametrize("name", LEAST_PROBES)
def test_giving_the_question_back_passes_no_probe(name: str) -> None:
    # What is to be repeated, found, chosen or used in a sentence stands in its own question.
    allowed = {
        "repeat_sentence",
        "extract_name",
        "choose_animal",
        "odd_one_out",
        "sentence_because_so",
    }
    passed = {p.id for p in probe_set(name).probes if p.judge(p.question).passed}
    assert passed - allowed == set()


@pytest.mark.parametrize(("far", "name"), FAR)
def test_a_right_answer_to_something_else_passes_no_probe(far: str, name: str) -> None:
    texts = [verdicts["pass"][0] for _, verdicts in sorted(written(far).items())]
    # Each probe meets five answers, spread evenly over the other set.
    for place, probe in enumerate(probe_set(name).probes):
        for step in range(5):
            answer = texts[(place + step * len(texts) // 5) % len(texts)]
            assert not probe.judge(answer).passed, f"{probe.id}: {answer}"


def test_a_right_answer_of_another_category_hardly_ever_passes_a_general_probe() -> None:
    known = probes("general")
    tried, passed = 0, []
    for probe in known.values():
        for other, verdicts in written("general").items():
            if known[other].category != probe.category:
                tried += len(verdicts["pass"])
                passed += [(probe.id, a) for a in verdicts["pass"] if probe.judge(a).passed]
    # Not none: 7 and 24 are right answers to several questions, and a bare number must pass.
    assert len(passed) < tried / 100, passed
