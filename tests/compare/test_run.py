"""The whole comparison: what is missing is said, what is done is not done again."""

import json
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from medqa import provenance
from medqa.compare import responses, run, sides
from medqa.compare.generate import Answer
from medqa.compare.report import read_answers
from medqa.errors import CheckFailedError, CheckpointError, StepError

from .conftest import ANSWERS, PLAN, QUESTIONS, lines
from .server import ChatServer, Reply, Request, serving

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
    shown = run.compare(project / "compare.yaml").text
    target = project / PLAN["output_dir"]
    assert sorted(p.name for p in target.iterdir()) == [
        "answers.jsonl",
        "report.html",
        "report.json",
    ]
    answers = read_answers(target / "answers.jsonl")
    assert [a["question"] for a in answers if a["set"] == "questions"] == QUESTIONS[:2]
    assert [a["reference"] for a in answers if a["set"] == "medical"] == ["抗生素", "止痛药"]
    tests = [a for a in answers if a["set"] == "test"]
    assert [a["reference"] for a in tests] == ANSWERS[:3]
    assert all({"base_nll", "tuned_nll", "nll_tokens"} <= a.keys() for a in tests)
    assert ["base_scores" in a for a in tests] == [True, True, False], "the third is not answered"
    found = json.loads((target / "report.json").read_text(encoding="utf-8"))
    rows = {metric["name"]: metric["rows"] for metric in found["metrics"]}
    assert (rows["perplexity"], rows["bleu_4"], rows["unfinished"]) == (3, 2, 6)
    assert found["probes"]["medical"]["total"]["rows"] == 2
    assert found["probes"]["medical"]["title"]["en"] == "medical facts"
    perplexity = found["metrics"][0]
    assert perplexity["base"] != perplexity["tuned"]
    assert [check["name"] for check in found["gate"]] == ["loop_rate"]
    assert found["training"] == facts
    assert found["inputs"].keys() == {
        "models/tiny",
        "saves/tiny/lora/sft/adapter_model.safetensors",
        "data/processed/sample/test.jsonl",
        "data/sample/probes.jsonl",
    }
    assert PLAN.keys() - {"output_dir"} <= found["config"].keys()
    assert found["config"]["code"]
    assert "output_dir" not in found["config"]
    for line in ("5 steps, 0.500 s a step", "outputs/compare/tiny/report.html"):
        assert line in shown
    assert shown.endswith(found["verdict"]["en"])
    assert "compare: 18 of 18 answers" in capfd.readouterr().err

    again = run.compare(project / "compare.yaml").text
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
    assert "up to date" not in other.text
    assert tree(target).keys() == made.keys()
    assert tree(target)["report.json"] != made["report.json"]


def test_a_gate_that_fails_is_said_after_the_report_is_written(
    root: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = r"^the gate fails: least.medical \(required: at least 90.0%; measured: 0.0% of 2\)$"
    with pytest.raises(CheckFailedError, match=says):
        main(root, project, "gate.least={medical: 0.9}")
    assert "FAILS" in capsys.readouterr().out
    target = project / PLAN["output_dir"]
    assert "least.medical" in (target / "report.html").read_text(encoding="utf-8")

    again = launch(root, project, "gate.least={medical: 0.9}")
    assert again.returncode == 1, "also when nothing is done again"
    assert again.stdout.endswith("up to date: outputs/compare/tiny\n")
    assert again.stderr.startswith("error: the gate fails: least.medical")


def test_another_gate_or_probe_does_not_ask_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run.compare(project / "compare.yaml")
    monkeypatch.setattr(responses, "opened", lambda plan: pytest.fail("a model was loaded"))
    second = run.compare(project / "compare.yaml", ["gate.loop_rate=0.5"], overwrite=True)
    assert second.text.split("gate")[0] == first.text.split("gate")[0]
    monkeypatch.undo()
    monkeypatch.setenv("MEDQA_ROOT", str(project))
    asked: list[str] = []

    def opened(plan: Any) -> Any:
        asked.append("opened")
        return sides.opened(plan)

    monkeypatch.setattr(responses, "opened", opened)
    run.compare(project / "compare.yaml", ["max_new_tokens=5"], overwrite=True)
    assert asked, "a longer answer is another answer"


def test_a_truncated_result_is_not_trusted(project: Path) -> None:
    run.compare(project / "compare.yaml")
    answers = project / PLAN["output_dir"] / "answers.jsonl"
    whole = answers.read_bytes()
    answers.write_bytes(whole[:-5])
    run.compare(project / "compare.yaml", overwrite=True)
    assert answers.read_bytes() == whole, "the same answers again"


def test_a_kill_half_way_and_a_restart_end_in_the_same_report(root: Path, project: Path) -> None:
    questions = [f"第{n}个问题：{'感冒' * (n % 7)}吃什么药？" for n in range(60)]
    words = [f"questions={json.dumps(questions, ensure_ascii=False)}", "max_new_tokens=6"]

    def result(folder: str) -> tuple[list[bytes], dict[str, Any]]:
        target = project / folder
        report = json.loads((target / "report.json").read_text(encoding="utf-8"))
        del report["finished"]
        return (
            (target / "answers.jsonl").read_bytes(),
            (target / "report.html").read_bytes(),
            report,
        )

    run.compare(project / "compare.yaml", [*words, "output_dir=outputs/whole"])
    command = [sys.executable, "scripts/compare.py", str(project / "compare.yaml"), *words]
    journal = project / "outputs/.killed.journal"
    with subprocess.Popen(
        [*command, "output_dir=outputs/killed"], cwd=root, stderr=subprocess.DEVNULL
    ) as killed:
        while not journal.is_file() or journal.read_bytes().count(b"\n") < 8:
            assert killed.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        killed.kill()
    kept = journal.read_bytes().count(b"\n")
    assert not (project / "outputs/killed").exists()
    run.compare(project / "compare.yaml", [*words, "output_dir=outputs/killed"])
    assert kept < journal.read_bytes().count(b"\n"), "it was killed half-way"
    assert result("outputs/killed") == result("outputs/whole")


def test_line_separators_in_an_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may say U+2028 or U+0085, at which str.splitlines cuts."""

    def answers(self: Any, side: str, questions: list[str], **options: Any) -> Any:
        yield [(n, Answer(f"{side}\u2028\x85一\x0c", 3, True)) for n in range(len(questions))]

    monkeypatch.setattr(sides.Pair, "answers", answers)
    shown = run.compare(project / "compare.yaml").text
    assert run.compare(project / "compare.yaml").text.startswith(shown)


def test_two_models(root: Path, project: Path) -> None:
    """The merged model is compared like any other; here with a copy of the base: no difference."""
    shutil.copytree(project / "models/tiny", project / "models/other")
    who = ["adapter_name_or_path=null", "tuned_model_name_or_path=models/other"]
    shown = run.compare(project / "compare.yaml", who).text
    assert "Not distinguishable from the base" in shown
    answers = read_answers(project / PLAN["output_dir"] / "answers.jsonl")
    assert all(a["base"] == a["tuned"] for a in answers if "base" in a)


def endpoints(server: ChatServer) -> list[str]:
    one = {"base_url": server.url, "timeout": 5, "retries": 0}
    both = {"base": one | {"model": "old"}, "tuned": one | {"model": "new"}}
    return [
        f"endpoints={json.dumps(both)}",
        "model_name_or_path=null",
        "adapter_name_or_path=null",
    ]


def test_two_endpoints_and_a_judge(project: Path) -> None:
    def respond(request: Request, before: int) -> Reply:
        if "裁决" in request.question:
            a = request.question.index("不可以。旧")
            b = request.question.index("可以。新")
            return Reply("裁决：A" if b < a else "裁决：B")
        return Reply("可以。新" if request.body["model"] == "new" else "不可以。旧")

    with serving(respond) as server:
        judge = {
            "endpoint": {"base_url": server.url, "model": "j"},
            "price": {"input": 1, "output": 2, "currency": "CNY"},
            "rows": 9,
        }
        words = [*endpoints(server), f"judge={json.dumps(judge)}"]
        shown = run.compare(project / "compare.yaml", words).text
    assert "judged 2 : 0" in shown
    assert "perplexity" not in shown.replace("test perplexity", "")
    answers = read_answers(project / PLAN["output_dir"] / "answers.jsonl")
    assert {(a["base"], a["tuned"]) for a in answers} == {("不可以。旧", "可以。新")}
    outcomes = [a["judgement"]["outcome"] for a in answers if "judgement" in a]
    assert outcomes == ["win", "win"]


def test_an_endpoint_that_fails_half_way_is_asked_only_for_the_rest(project: Path) -> None:
    down = True

    def respond(request: Request, before: int) -> Reply:
        broken = down and request.body["model"] == "new" and "布洛芬" in request.question
        return Reply(status=500) if broken else Reply("好的。")

    with serving(respond) as server:
        with pytest.raises(StepError, match="run the same command again"):
            run.compare(project / "compare.yaml", endpoints(server))
        first, down = len(server.requests), False
        run.compare(project / "compare.yaml", endpoints(server))
        again = server.requests[first:]
    assert again
    assert all(request.body["model"] == "new" for request in again), "the base's answers are kept"
    assert first + len(again) <= 2 * 6 + 1


def test_two_files_of_predictions(project: Path) -> None:
    for name, said in (("base", "不知道。"), ("tuned", "多喝水。")):
        lines(
            project / f"{name}.jsonl",
            [
                {"prompt": q, "predict": said, "label": a}
                for q, a in zip(QUESTIONS, ANSWERS, strict=True)
            ],
        )
    plan = {
        "predictions": {"base": "base.jsonl", "tuned": "tuned.jsonl"},
        "output_dir": "outputs/compare/files",
    }
    (project / "files.yaml").write_text(json.dumps(plan), encoding="utf-8")
    shown = run.compare(project / "files.yaml").text
    assert "BLEU-4" in shown
    assert "answers without an end" not in shown, "such a file does not say it"
    rows = read_answers(project / "outputs/compare/files/answers.jsonl")
    assert rows[0]["tuned_scores"]["bleu_4"] == pytest.approx(1.0)
    assert rows[0]["base_scores"]["bleu_4"] < 0.5


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


def test_every_module_named_in_the_digests_is_there(root: Path) -> None:
    modules = {file.stem for file in (root / "src/medqa/compare").glob("*.py")}
    assert modules >= run.LOOKING | run.JUDGING
