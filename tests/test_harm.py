"""Adapters harmed on purpose, each in its own way: the gate of the demo catches each by name."""

import json
import random
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.project import Project

pytestmark = pytest.mark.slow

Row = dict[str, Any]


def shuffled_answers(rows: list[Row]) -> Iterable[Row]:
    """Every question keeps its form and gets the answer of another."""
    answers = [row["output"] for row in rows]
    random.Random(0).shuffle(answers)
    return (row | {"output": answer} for row, answer in zip(rows, answers, strict=True))


def only_medicine(rows: list[Row]) -> Iterable[Row]:
    """Without the replay of general questions, as people train who never measure it."""
    return (row for row in rows if row["source"] != "general")


def loops(rows: list[Row]) -> Iterable[Row]:
    """Answers that begin rightly and then repeat themselves."""
    return (row | {"output": row["output"] + "请注意休息。" * 8} for row in rows)


# The harm is not to be stopped early or left out by the look at healthy validation rows.
UNWATCHED = (
    "eval_dataset=null",
    "eval_strategy=no",
    "load_best_model_at_end=false",
    "early_stopping_steps=null",
)


def failed(printed: str) -> set[str]:
    """The names in the last line, ``error: the gate fails: keep.general (…), …``."""
    head, _, rest = printed.splitlines()[-1].partition("the gate fails: ")
    assert head == "error: "
    return set(re.findall(r"([\w.]+) \(required: ", rest))


@pytest.mark.parametrize(
    ("harm", "caught"),
    [
        (shuffled_answers, "least.medical"),
        (only_medicine, "keep.general"),
        (loops, "loop_rate"),
    ],
)
def test_the_gate_names_the_harm(
    demo_project: Project,
    demo: str,
    harm: Callable[[list[Row]], Iterable[Row]],
    caught: str,
) -> None:
    name = harm.__name__
    rows = demo_project.lines("data/processed/sample/train.jsonl")
    folder = demo_project.root / "data/processed" / name
    folder.mkdir()
    (folder / "train.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in harm(rows)), encoding="utf-8"
    )
    registry = demo_project.root / "data/dataset_info.json"
    entries = json.loads(registry.read_text(encoding="utf-8"))
    entries[f"{name}_train"] = entries["sample_train"] | {
        "file_name": f"processed/{name}/train.jsonl"
    }
    registry.write_text(json.dumps(entries), encoding="utf-8")
    adapter = f"saves/tiny/lora/{name}"
    demo_project.script(
        "train",
        "configs/tiny/lora_sft.yaml",
        f"dataset={name}_train",
        f"output_dir={adapter}",
        "num_train_epochs=6",
        *UNWATCHED,
    )
    done = demo_project.script(
        "compare",
        "configs/tiny/compare.yaml",
        f"adapter_name_or_path={adapter}",
        f"output_dir=outputs/compare/{name}",
        check=False,
    )
    assert caught in failed(done)
    report = demo_project.json(f"outputs/compare/{name}/report.json")
    assert caught in {check["name"] for check in report["gate"] if not check["passed"]}
    assert caught in report["verdict"]["en"]


def test_the_demo_itself_passes(demo_project: Project, demo: str) -> None:
    gate = demo_project.json("outputs/compare/tiny/report.json")["gate"]
    assert len(gate) == 6
    assert all(check["passed"] for check in gate)
