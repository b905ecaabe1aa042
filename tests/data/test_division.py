"""What is divided and why, seen in the files that a conversion writes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medqa.data import registry

from .conftest import Project
from .test_pipeline import ROWS, asked, check_sums


def test_validation_is_a_third_split(project: Project) -> None:
    project.lines("a.jsonl", ROWS)
    text = project.convert("a.jsonl", val_share=0.2)
    check_sums(project)
    assert [len(project.read(part)) for part in ("train", "test", "val")] == [35, 5, 10]
    assert set(registry.read()) == {"demo_train", "demo_test", "demo_val"}
    assert "demo_val" in text
    # Asking for validation takes nothing from test.
    project.convert("a.jsonl", name="alone")
    assert {r["id"] for r in project.read("test")} == {
        r["id"] for r in project.read("test", "alone")
    }


def test_near_copies_stay_on_one_side(project: Project) -> None:
    rows = []
    for n in range(60):
        question = asked(n) + asked(n + 500)
        copies = (question, f"您好，{question}", question.replace("？", "?"), f"{question}谢谢")
        rows += [{"questions": q, "answers": f"第{n}题的第{k}个回答"} for k, q in enumerate(copies)]
    project.lines("a.jsonl", rows)
    project.convert("a.jsonl", test_share=0.3)
    check_sums(project)
    side = {}
    for part in ("train", "test"):
        for row in project.read(part):
            topic = row["output"].partition("题")[0]
            assert side.setdefault(topic, part) == part
    assert len(side) == 60 and abs(len(project.read("test")) - 72) <= 2
    leakage = project.manifest()["leakage"]
    assert leakage["random"]["equal"] > 0.5 and leakage["ours"]["equal"] == 0
    # Nothing is dropped for being similar.
    assert project.manifest()["counts"]["rejects"] == 0


def test_a_shared_long_answer_ties_rows(project: Project) -> None:
    rows = [
        {"questions": asked(n), "answers": f"第{n // 3}个很长的回答。" + "多休息，多喝水。" * 8}
        for n in range(90)
    ]
    project.lines("a.jsonl", rows)
    project.convert("a.jsonl", test_share=0.3)
    outputs = [{row["output"] for row in project.read(part)} for part in ("train", "test")]
    assert not outputs[0] & outputs[1] and len(outputs[1]) == 9


def test_training_rows_near_an_evaluation_question_are_left_out(project: Project) -> None:
    project.lines("a.jsonl", ROWS)
    project.convert("a.jsonl", name="alone")
    train, test = project.read("train", "alone"), project.read("test", "alone")
    questions = [train[0]["instruction"], f"您好，{train[1]['instruction']}谢谢"]
    questions += [test[0]["instruction"], asked(9999)]
    project.lines("exam.jsonl", [{"题目": q, "答案": "A"} for q in questions])
    exam = project.source("exam.jsonl", columns={"question": "题目", "answer": "答案"})
    project.convert("a.jsonl", decontaminate=[exam])
    check_sums(project)
    rejects = project.read("rejects")
    assert {r["id"] for r in rejects} == {train[0]["id"], train[1]["id"]}
    assert {r["reason"] for r in rejects} == {"near_evaluation"}
    assert {r["match"].partition(": ")[0] for r in rejects} == {"exam"}
    assert project.read("test") == test


def test_weights_take_a_source_more_densely(project: Project) -> None:
    project.lines("a.jsonl", ROWS)
    project.lines("b.jsonl", [{"questions": asked(n), "answers": "回答"} for n in range(100, 150)])
    sources = [project.source("a.jsonl", weight=3), project.source("b.jsonl")]
    project.convert(sources=sources, max_rows=40)
    check_sums(project)
    assert Counter(row["source"] for row in project.read("train")) == {"a": 30, "b": 10}


def test_departments_are_in_test_as_in_training(project: Project) -> None:
    rows = [
        {"question": asked(n), "answer": f"回答{n}", "label": ("内科", "外科", "儿科")[n % 3]}
        for n in range(600)
    ]
    project.lines("a.jsonl", rows)
    project.convert("a.jsonl")
    assert Counter(row["department"] for row in project.read("test")) == dict.fromkeys(
        ("内科", "外科", "儿科"), 20
    )


def test_parquet_holds_the_same_rows(project: Project) -> None:
    project.lines("a.jsonl", ROWS)
    project.convert("a.jsonl")
    project.convert("a.jsonl", name="table", output="parquet")
    for part in ("train", "test"):
        table = pl.read_parquet(project.processed / "table" / f"{part}.parquet")
        assert table.to_dicts() == project.read(part)
    assert registry.read()["table_train"]["file_name"] == "processed/table/train.parquet"


@pytest.mark.parametrize(
    ("changes", "question", "answer"),
    [
        ({}, "头痛怎么办？", "多休息，电话[电话]。"),
        ({"rules": {"greetings": False}}, "头痛怎么办？", "您好，多休息，电话[电话]。"),
        ({"privacy": False}, "头痛怎么办？", "多休息，电话13812345678。"),
    ],
)
def test_rules_and_privacy_have_switches(
    project: Project, changes: dict[str, Any], question: str, answer: str
) -> None:
    rules = {"advertisement": False, **changes.pop("rules", {})}
    row = {"questions": "头痛怎么办？", "answers": "您好，多休息，电话13812345678。"}
    project.lines("a.jsonl", [row, *ROWS])
    project.convert("a.jsonl", rules=rules, **changes)
    rows = {r["id"]: r for part in ("train", "test") for r in project.read(part)}
    assert (rows["a:1"]["instruction"], rows["a:1"]["output"]) == (question, answer)


def test_no_row_goes_for_being_merely_similar(project: Project, root: Path) -> None:
    """Questions that differ in one decisive word, all with the same answer."""
    file = root / "tests/data/distinct_pairs.jsonl"
    pairs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(pairs) >= 200
    asked = {question for pair in pairs for question in (pair["a"], pair["b"])}
    project.lines("a.jsonl", [{"questions": q, "answers": "请遵医嘱。"} for q in sorted(asked)])
    project.convert("a.jsonl")
    check_sums(project)
    assert project.manifest()["counts"]["rejects"] == 0
    assert len(project.read("train")) + len(project.read("test")) == len(asked)
