"""The whole comparison: what is missing is said, what is done is not done again."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medqa import provenance
from medqa.compare import run
from medqa.errors import CheckpointError

from .conftest import PLAN, QUESTIONS

pytestmark = pytest.mark.slow


def launch(root: Path, project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the script in a process of its own; for what ends before a model is loaded."""
    return subprocess.run(
        [sys.executable, "scripts/compare.py", str(project / "compare.yaml"), *arguments],
        cwd=root,
        capture_output=True,
        text=True,
    )


def main(root: Path, project: Path, *arguments: str) -> None:
    """Runs the script here, where importing torch is already paid for."""
    script = runpy.run_path(str(root / "scripts/compare.py"))
    script["main"]([str(project / "compare.yaml"), *arguments])


def tree(folder: Path) -> dict[str, int]:
    return {
        file.relative_to(folder).as_posix(): file.stat().st_mtime_ns
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        ("models/tiny/config.json", "model models/tiny does not exist; run: "),
        (
            "saves/tiny/lora/sft/adapter_model.safetensors",
            "adapter saves/tiny/lora/sft does not exist or is not finished; run: python scripts/tr",
        ),
        (
            "data/processed/sample/test.jsonl",
            "data/processed/sample/test.jsonl does not exist; "
            "run: python scripts/convert.py configs/data/sample.yaml",
        ),
        (
            "data/sample/probes.jsonl",
            "data/sample/probes.jsonl does not exist; run: python scripts/make_sample.py",
        ),
    ],
)
def test_what_is_missing(root: Path, project: Path, gone: str, says: str) -> None:
    (project / gone).unlink()
    before = tree(project)
    done = launch(root, project)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {says}")
    assert done.stderr.count("\n") == 1
    assert tree(project) == before


def test_an_adapter_of_another_base_is_refused(project: Path) -> None:
    record = project / "saves/tiny/lora/sft/medqa_run.json"
    provenance.write(record, step="train", inputs={"models/tiny": "another"}, config={})
    with pytest.raises(CheckpointError, match="they do not belong together"):
        run.compare(project / "compare.yaml")


def test_a_comparison(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    record = project / "saves/tiny/lora/sft/medqa_run.json"
    base = provenance.model_digest(project / "models/tiny")
    facts = {"steps": 5, "seconds_per_step": 0.5, "train_loss": 1.0}
    provenance.write(record, step="train", inputs=base, config={}, **facts)
    shown = run.compare(project / "compare.yaml")
    target = project / PLAN["output_dir"]
    assert sorted(p.name for p in target.iterdir()) == [
        "answers.jsonl",
        "report.html",
        "report.json",
    ]
    answers = [
        json.loads(line) for line in (target / "answers.jsonl").read_bytes().split(b"\n")[:-1]
    ]
    assert [a["question"] for a in answers if a["set"] == "questions"] == QUESTIONS[:2]
    assert [a["expect"] for a in answers if a["set"] == "medical"] == ["抗生素", "止痛药"]
    assert all({"base", "tuned"} <= a.keys() for a in answers)
    found = json.loads((target / "report.json").read_text(encoding="utf-8"))
    assert found["facts"] == {"medical": {"asked": 2, "base": 0, "tuned": 0}}
    assert found["test_loss"]["rows"] == PLAN["test_rows"]
    assert found["test_loss"]["base"] != found["test_loss"]["tuned"]
    assert found["training"] == {"steps": 5, "seconds_per_step": 0.5, "train_loss": 1.0}
    assert found["inputs"].keys() == {
        "models/tiny",
        "saves/tiny/lora/sft/adapter_model.safetensors",
        "data/processed/sample/test.jsonl",
        "data/sample/probes.jsonl",
    }
    assert found["config"].keys() == PLAN.keys() - {"output_dir"}
    for line in ("5 steps, 0.500 s a step", "outputs/compare/tiny/report.html", "loss curve saves"):
        assert line in shown
    assert "compare: 14 of 14 answers" in capfd.readouterr().err

    again = run.compare(project / "compare.yaml")
    assert again == f"{shown}\nup to date: outputs/compare/tiny"


def test_up_to_date_is_quick_and_other_inputs_need_overwrite(root: Path, project: Path) -> None:
    run.compare(project / "compare.yaml")
    target = project / PLAN["output_dir"]
    made = tree(target)

    again = launch(root, project)
    assert again.returncode == 0
    assert again.stdout.endswith("up to date: outputs/compare/tiny\n")
    assert tree(target) == made

    refused = launch(root, project, "test_rows=2")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "outputs/compare/tiny exists and is not empty" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert tree(target) == made

    other = run.compare(project / "compare.yaml", ["test_rows=2"], overwrite=True)
    assert "up to date" not in other
    assert "2 held-out rows" in other
    assert tree(target).keys() == made.keys()
    assert tree(target)["report.json"] != made["report.json"]


def test_a_truncated_result_is_not_trusted(project: Path) -> None:
    run.compare(project / "compare.yaml")
    answers = project / PLAN["output_dir"] / "answers.jsonl"
    whole = answers.read_bytes()
    answers.write_bytes(whole[:-5])
    run.compare(project / "compare.yaml", overwrite=True)
    assert answers.read_bytes() == whole, "the same answers again"


def test_line_separators_in_an_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may say U+2028 or U+0085, at which str.splitlines cuts."""

    def answers(self: Any, side: str, questions: list[str], **options: Any) -> Any:
        yield [(n, f"{side}\u2028\x85一\x0c") for n in range(len(questions))]

    monkeypatch.setattr(run.Pair, "answers", answers)
    shown = run.compare(project / "compare.yaml")
    assert run.compare(project / "compare.yaml").startswith(shown)


def test_questions_write_nothing_and_need_no_test_data(
    root: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "data/processed/sample/test.jsonl").unlink()
    (project / "data/sample/probes.jsonl").unlink()
    before = tree(project)
    main(root, project, "--question", "感冒吃什么药？", "--question", "[b]<|user|>")
    shown = capsys.readouterr().out
    assert "感冒吃什么药？" in shown
    assert "[b]<|user|>" in shown
    assert QUESTIONS[1] not in shown
    assert tree(project) == before


def test_a_question_without_a_model(root: Path, project: Path) -> None:
    (project / "models/tiny/config.json").unlink()
    done = launch(root, project, "--question", "a")
    assert done.returncode == 2
    assert "model models/tiny does not exist" in done.stderr
