"""A project with an imported golden base, an adapter that changes its answers, and questions."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.adapters import ADAPTER, BASE, write_golden_pair

QUESTIONS = [
    "感冒吃什么药？",
    "饮酒以后可以服用西地那非吗",
    "a",
    "高血压患者可以停药吗？请说明。" * 3,
]
ANSWERS = ["多喝水。", "不可以。", "b", "不可以自行停药。" * 4]
PLAN: dict[str, Any] = {
    "model_name_or_path": BASE,
    "adapter_name_or_path": ADAPTER,
    "test_file": "data/processed/sample/test.jsonl",
    "test_rows": 3,
    "answer_rows": 2,
    "cutoff_len": 256,
    "probes": {"medical": "data/sample/probes.jsonl"},
    "questions": QUESTIONS[:2],
    "max_new_tokens": 4,
    "batch_size": 2,
    "gate": {"loop_rate": 1.0},
    "output_dir": "outputs/compare/tiny",
}


def lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; tests work on copies."""
    project = tmp_path_factory.mktemp("project")
    write_golden_pair(root, project, std=0.2)
    pairs = zip(QUESTIONS, ANSWERS, strict=True)
    lines(
        project / PLAN["test_file"],
        [{"instruction": question, "input": "", "output": answer} for question, answer in pairs],
    )
    lines(
        project / PLAN["probes"]["medical"],
        [
            {"kind": "class", "question": "阿莫西林是什么药？", "expect": "抗生素"},
            {"kind": "class", "question": "布洛芬是什么药？", "expect": "止痛药"},
        ],
    )
    (project / "compare.yaml").write_text(yaml.safe_dump(PLAN, allow_unicode=True), "utf-8")
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    return tmp_path
