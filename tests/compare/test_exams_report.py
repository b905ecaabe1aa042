"""Counts of an examination, and the lines under its table."""

from pathlib import Path
from typing import Any

import pytest

from medqa.compare.exams_papers import Paper
from medqa.compare.exams_plan import ExamTask
from medqa.compare.exams_report import results, scored, summary
from medqa.config import load


def row(base: str | None, tuned: str | None, answer: str = "A", **more: Any) -> dict[str, Any]:
    right = {"base_right": base == answer, "tuned_right": tuned == answer}
    choices = {"base_choice": base, "tuned_choice": tuned}
    return {"set": "cmb", "subject": "内科", "answer": answer} | choices | right | more


ROWS = [
    row("B", "A"),
    row("A", "A", subject="外科"),
    row(None, "AB", "AB"),
    row(None, None, "ABD", subject="外科"),
]


def test_counts() -> None:
    counts = scored(ROWS)
    assert (counts["rows"], counts["base"], counts["tuned"]) == (4, 1, 3)
    assert (counts["gained"], counts["lost"], counts["p_value"]) == (2, 0, 0.5)
    assert (counts["base_unparsed"], counts["tuned_unparsed"]) == (2, 1)
    low, high = counts["base_interval"]
    assert (round(low, 3), round(high, 3)) == (0.046, 0.699), "Wilson's, of 1 in 4"
    assert counts["base_tied"] == counts["tuned_tied"] == 0


def test_equally_likely_answers_are_counted() -> None:
    tied = {"base_scores": [-1.5, -2.0, -1.5], "tuned_scores": [-2.0, -2.0, -1.0]}
    counts = scored([row("A", "C", **tied)])
    assert (counts["base_tied"], counts["tuned_tied"]) == (1, 0)


@pytest.mark.parametrize("name", ["cmb", "cmmlu"])
def test_the_summary_tells_what_was_not_asked_and_not_read(root: Path, name: str) -> None:
    task = load(root / f"configs/exams/{name}.yaml", [], ExamTask)
    paper = Paper(read=6, left_out={"no_answer": {"rows": 2, "first": "x.json:3"}})
    tied = {"base_scores": [-1.0, -1.0], "tuned_scores": [-1.0, -2.0]} if name == "cmmlu" else {}
    rows = [one | {"set": name} | tied for one in ROWS]
    found = {"exams": results({name: task}, {name: paper}, rows)}
    text = summary(found, root / "outputs/evaluate/x")
    assert f"{name}: 2 of 6 rows not asked, no_answer: x.json:3" in text
    for part in ("内科", "外科", "one right answer", "several right answers", "+50.0 [-"):
        assert part in text
    assert ("no choice could be read in base 50.0%, tuned 25.0%" in text) == task.written
    assert ("tied, and the first was taken: base 4, tuned 0" in text) != task.written
    assert found["exams"][name]["single"]["rows"] == 2
    assert text.endswith("outputs/evaluate/x/answers.jsonl")
