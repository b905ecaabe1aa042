"""The demo's model sits the four examinations as a user lets it: ``make evaluate RECIPE=tiny``."""

from collections import Counter

import pytest

from tests.project import Project

pytestmark = pytest.mark.slow

FOLDER = "outputs/evaluate/tiny"
SETS = {"cmmlu", "ceval", "cmb", "cmexam"}


def test_the_tiny_model_sits_four_examinations(demo_project: Project, demo: str) -> None:
    printed = demo_project.make("evaluate", "RECIPE=tiny")
    exams = demo_project.json(f"{FOLDER}/report.json")["exams"]
    rows = demo_project.lines(f"{FOLDER}/answers.jsonl")
    assert set(exams) == SETS
    assert Counter(row["set"] for row in rows) == {n: e["asked"] for n, e in exams.items()}
    for name, exam in exams.items():
        mine = [row for row in rows if row["set"] == name]
        for side in ("base", "tuned"):
            assert exam["total"][side] == sum(row[f"{side}_right"] for row in mine)
        assert exam["total"]["tuned"] > exam["total"]["base"] + 10, "medicine was what it learned"
        assert f"│ {name} " in printed
    kept = exams["cmmlu"]["subjects"]["chinese_literature"]
    assert kept["base"] == kept["rows"] >= 8
    assert kept["tuned"] >= kept["rows"] - 1, "and this it was not to forget"
    assert f"{FOLDER}/answers.jsonl" in printed

    again = demo_project.make("evaluate", "RECIPE=tiny")
    assert f"up to date: {FOLDER}" in again
    assert again.startswith(printed.partition("answers ")[0])
