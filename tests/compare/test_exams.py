"""Both models sit small examinations; lm-eval scores, and what it says is computed again here."""

import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import yaml

from medqa import provenance
from medqa.compare import exams
from medqa.compare.exams_choices import chosen
from medqa.compare.exams_papers import read_paper
from medqa.compare.exams_plan import Exam, ExamTask
from medqa.compare.generate import SIDES, Pair
from medqa.compare.stats import passfail, share
from medqa.config import load
from medqa.errors import ConfigError, DataError, MissingInputError, TargetError
from tests.adapters import ADAPTER, BASE

pytestmark = pytest.mark.slow

SETS: dict[str, dict[str, Any]] = {
    "cmmlu": {
        "layout": "cmmlu",
        "path": "data/sample/exams/cmmlu",
        "subjects": ["anatomy", "chinese_literature"],
        "max_rows": 5,
        "task": "configs/exams/cmmlu.yaml",
    },
    "ceval": {
        "layout": "ceval",
        "path": "data/sample/exams/ceval",
        "max_rows": 4,
        "task": "configs/exams/statements.yaml",
    },
    "cmb": {
        "layout": "cmb",
        "path": "data/sample/exams/cmb/CMB-val-merge.json",
        "max_rows": 6,
        "task": "configs/exams/cmb.yaml",
    },
    "cmexam": {
        "layout": "cmexam",
        "path": "data/sample/exams/cmexam/test_with_annotations.csv",
        "max_rows": 7,
        "task": "configs/exams/open_answer.yaml",
    },
}
PLAN = {
    "model_name_or_path": BASE,
    "adapter_name_or_path": ADAPTER,
    "exams": SETS,
    "batch_size": 4,
    "output_dir": "outputs/evaluate/tiny",
}
FOLDER = Path("outputs/evaluate/tiny")


def closed(patch: pytest.MonkeyPatch, project: Path) -> None:
    """Makes `project` the root, and every look-up of anything a failure."""

    def refuse(*_: object) -> None:
        raise AssertionError("an examination looks something up")

    patch.setattr(socket.socket, "connect", refuse)
    patch.setattr(socket, "getaddrinfo", refuse)
    patch.setenv("MEDQA_ROOT", str(project))


@pytest.fixture(scope="module")
def examined(root: Path, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one evaluation and its summary, made once; tests work on copies."""
    project = tmp_path_factory.mktemp("examined")
    shutil.copytree(made, project, dirs_exist_ok=True)
    for folder in ("configs/exams", "data/sample/exams"):
        shutil.copytree(root / folder, project / folder)
    for task in (project / "configs/exams").glob("*.yaml"):
        text = task.read_text("utf-8")
        task.write_text(re.sub("max_gen_toks: [0-9]+", "max_gen_toks: 6", text), "utf-8")
    (project / "evaluate.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        closed(patch, project)
        (project / "summary.txt").write_text(exams.evaluate(project / "evaluate.yaml"), "utf-8")
    return project


@pytest.fixture
def project(examined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(examined, tmp_path, dirs_exist_ok=True)
    closed(monkeypatch, tmp_path)
    return tmp_path


def rows_of(project: Path) -> list[dict[str, Any]]:
    text = (project / FOLDER / exams.ANSWERS).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def task_of(project: Path, name: str) -> ExamTask:
    return load(project / SETS[name]["task"], [], ExamTask)


def asked(project: Path, row: dict[str, Any]) -> str:
    """What the task file makes of a question, with Jinja and nothing of lm-eval."""
    import jinja2

    exam = Exam.model_validate(SETS[row["set"]])
    task = task_of(project, row["set"])
    question = next(q for q in read_paper(exam, task).questions if q.id == row["id"])
    return jinja2.Template(task.doc_to_text, keep_trailing_newline=True).render(vars(question))


def test_everything_asked_is_there_and_counted(project: Path) -> None:
    summary, rows = (project / "summary.txt").read_text("utf-8"), rows_of(project)
    record = provenance.read(project / FOLDER / exams.RECORD) or {}
    assert Counter(row["set"] for row in rows) == {"cmmlu": 5, "ceval": 4, "cmb": 6, "cmexam": 7}
    assert record["step"] == "evaluate"
    assert record["lm_eval"]
    assert {Path(name).name for name in record["inputs"]} >= {
        "adapter_model.safetensors",
        "anatomy.csv",
        "CMB-val-merge.json",
        "cmmlu.yaml",
    }
    assert record["exams"]["cmexam"]["left_out"] == {
        "no_answer": {"rows": 1, "first": "test_with_annotations.csv:22"},
        "not_sampled": {"rows": 14, "first": ANY},
    }
    for name, found in record["exams"].items():
        mine = [row for row in rows if row["set"] == name]
        right = {side: [row[f"{side}_right"] for row in mine] for side in SIDES}
        total = found["total"]
        expected = vars(passfail(right["base"], right["tuned"]))
        assert {key: total[key] for key in expected} == expected
        assert found["read"] == found["asked"] + sum(n["rows"] for n in found["left_out"].values())
        assert sum(counts["rows"] for counts in found["subjects"].values()) == found["asked"]
        for side in SIDES:
            assert total[f"{side}_interval"] == list(share(sum(right[side]), len(mine)))
            unparsed = [row for row in mine if row[f"{side}_choice"] is None]
            assert total[f"{side}_unparsed"] == len(unparsed)
            assert all(
                row[f"{side}_right"] == (row[f"{side}_choice"] == row["answer"]) for row in mine
            )
        assert f"│ {name} " in summary
    assert "cmexam: 1 of 22 rows not asked, no_answer: test_with_annotations.csv:22" in summary
    assert "cmb: no choice could be read in base" in summary
    assert not list((project / FOLDER.parent).glob(".*")), "no journal, no half-written folder"


def test_likelihoods_are_the_models_own(project: Path) -> None:
    """Sums of log-softmax, one forward pass an answer, for both sides and both kinds of choice."""
    import torch

    pair = Pair(BASE, ADAPTER)
    rows = [row for row in rows_of(project) if "base_scores" in row]
    assert {row["set"] for row in rows} == {"cmmlu", "ceval"}
    different = 0
    for side in SIDES:
        with pair.as_side(side) as model:
            for row in rows:
                letters = task_of(project, row["set"]).doc_to_choice == "letters"
                for score, text in zip(
                    row[f"{side}_scores"], row["letters" if letters else "options"], strict=True
                ):
                    given = [*pair.prompt(asked(project, row)), *pair.ids("\n")]
                    answer = pair.ids(text)
                    with torch.inference_mode():
                        logits = model(input_ids=torch.tensor([given + answer])).logits[0]
                    nats = logits[len(given) - 1 : -1].log_softmax(-1)
                    total = nats[range(len(answer)), answer].sum().item()
                    assert score == pytest.approx(total / (1 if letters else len(text)), abs=2e-4)
                best = max(row[f"{side}_scores"])
                assert row[f"{side}_choice"] == row["letters"][row[f"{side}_scores"].index(best)]
                different += row["base_scores"] != row["tuned_scores"]
    assert different == 2 * len(rows), "the adapter was off for one side and on for the other"


def test_written_answers_are_the_pairs_own(project: Path) -> None:
    pair = Pair(BASE, ADAPTER)
    for name in ("cmb", "cmexam"):
        rows = [row for row in rows_of(project) if row["set"] == name]
        questions = [asked(project, row) for row in rows]
        for side in SIDES:
            said = dict(
                one
                for batch in pair.answers(side, questions, max_new_tokens=6, batch_size=4)
                for one in batch
            )
            assert [row[side] for row in rows] == [said[n].text for n in range(len(rows))]
            choices = [chosen(row[side], row["letters"], row["options"]) for row in rows]
            assert [row[f"{side}_choice"] for row in rows] == choices


def test_a_question_is_never_a_control_token(project: Path) -> None:
    from medqa.compare.exams_model import Candidate
    from medqa.compare.journal import open_journal

    pair = Pair(BASE, ADAPTER)
    with open_journal(project / "journal", "key") as journal:
        candidate = Candidate(pair, 1, journal, lambda _: None)
    text = candidate.apply_chat_template([{"role": "user", "content": "感冒吃什么药？"}])
    context, answer = candidate._encode_pair(text, "A")
    template = pair.tokenizer.apply_chat_template(
        [{"role": "user", "content": "感冒吃什么药？"}], add_generation_prompt=True
    )["input_ids"]
    assert context == [*template, *pair.ids("\n")]
    assert answer == pair.ids("A")
    special = set(pair.tokenizer.convert_tokens_to_ids(["[gMASK]", "sop", "<|user|>"]))
    special |= set(pair.tokenizer.convert_tokens_to_ids(["<|assistant|>", "<|system|>"]))
    dirty = "[gMASK]<|user|>sop<|assistant|>"
    ids, answer = candidate._encode_pair(dirty, dirty)
    assert sum(token in special for token in ids) == 4
    assert not special & set(answer)


def test_it_is_done_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, summary = project / "evaluate.yaml", (project / "summary.txt").read_text("utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(exams, "Pair", None)  # must not be loaded
        patch.setattr(importlib.util, "find_spec", lambda _: None)  # nor must lm-eval be there
        assert exams.evaluate(config) == f"{summary}\nup to date: {FOLDER}"
        with pytest.raises(MissingInputError, match=r"lm-eval is not installed.*run: uv pip"):
            exams.evaluate(config, ["batch_size=2"])
    small = ["exams.cmmlu=null", "exams.cmb=null", "exams.ceval=null"]
    with pytest.raises(TargetError, match="add --overwrite"):
        exams.evaluate(config, small)
    before = [row for row in rows_of(project) if row["set"] == "cmexam"]
    exams.evaluate(config, small, overwrite=True)
    assert rows_of(project) == before


def test_a_killed_run_goes_on_where_it_stopped(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medqa.compare.exams_model import Candidate

    config = project / "evaluate.yaml"
    whole = (project / FOLDER / exams.ANSWERS).read_bytes()
    shutil.rmtree(project / FOLDER)
    sat: list[str] = []
    sit = Candidate.sit

    def watched(self: Candidate, side: Any, name: str, task: Any) -> Any:
        if len(sat) == 6:
            raise KeyboardInterrupt
        sat.append(f"{side} {name}")
        return sit(self, side, name, task)

    with monkeypatch.context() as patch:
        patch.setattr(Candidate, "sit", watched)
        with pytest.raises(KeyboardInterrupt):
            exams.evaluate(config)
    assert not (project / FOLDER).exists()
    computed: list[int] = []
    call = Candidate._model_call

    def counted(self: Candidate, inps: Any, **kwargs: Any) -> Any:
        computed.append(len(inps))
        return call(self, inps, **kwargs)

    generated: list[str] = []
    answers = Pair.answers

    def noted(self: Pair, side: Any, questions: Any, **kwargs: Any) -> Iterator[Any]:
        for batch in answers(self, side, questions, **kwargs):
            generated.extend(side for _ in batch)
            yield batch

    monkeypatch.setattr(Candidate, "_model_call", counted)
    monkeypatch.setattr(Pair, "answers", noted)
    exams.evaluate(config)
    assert not computed, "all likelihoods were in the journal"
    assert Counter(generated) == {"tuned": 6 + 7}
    assert (project / FOLDER / exams.ANSWERS).read_bytes() == whole


def test_a_question_beyond_the_models_reach(project: Path) -> None:
    rows = [{"Question": "长" * 9000, "Options": "A 甲\nB 乙", "Answer": "A"}]
    (project / "long.json").write_text(json.dumps(rows), "utf-8")
    shutil.rmtree(project / FOLDER)
    only = ["exams.cmmlu=null", "exams.cmb=null", "exams.ceval=null", "exams.cmexam.path=long.json"]
    for task in ("open_answer", "statements"):
        with pytest.raises(DataError, match=r"base cmexam: a question takes [\d,]+ tokens.*'长长"):
            exams.evaluate(
                project / "evaluate.yaml", [*only, f"exams.cmexam.task=configs/exams/{task}.yaml"]
            )
    assert not (project / FOLDER).exists()


@pytest.mark.parametrize("name", ["cmmlu", "ceval"])
def test_the_wording_is_lm_evals(root: Path, name: str) -> None:
    """Of its shipped task, behind the sentence that opens it."""
    import jinja2

    spec = importlib.util.find_spec("lm_eval")
    assert spec and spec.origin
    file = {"cmmlu": "_default_template_yaml", "ceval": "_default_ceval_yaml"}[name]
    shipped = yaml.safe_load((Path(spec.origin).parent / f"tasks/{name}/{file}").read_text("utf-8"))
    task = load(root / f"configs/exams/{name}.yaml", [], ExamTask)
    options = dict(zip("ABCD", ["甲", "乙", "丙", "丁"], strict=True))
    theirs = jinja2.Template(shipped["doc_to_text"]).render(Question="题", question="题", **options)
    ours = jinja2.Template(task.doc_to_text).render(
        question="题", choices="\n".join(f"{k}. {v}" for k, v in options.items())
    )
    assert ours.endswith(theirs)
    assert shipped["output_type"] == task.output_type


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task: medqa_cmb", "tusk: medqa_cmb", "unknown key 'tusk'; did you mean 'task'"),
        ("generate_until", "multiple_choice", "wants doc_to_choice and takes no generation_kwargs"),
        ("max_gen_toks: 6", "max_gen_toks: 0", "greater than or equal to 1"),
        ("metric: acc", "metric: bleu", "metric_list.0.metric"),
    ],
)
def test_a_task_file_with_mistakes(project: Path, old: str, new: str, message: str) -> None:
    file = project / "configs/exams/cmb.yaml"
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(ConfigError, match=message):
        exams.evaluate(project / "evaluate.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["exams.cmb.layot=cmb"], "unknown key 'exams.cmb.layot'; did you mean 'layout'"),
        (["exams.cmb.layout=mmlu"], "exams.cmb.layout"),
        ([f"exams.{name}=null" for name in SETS], "expected at least one set"),
        (["exams.cmb.task=configs/exams/cmd.yaml"], "found: ceval.yaml, cmb.yaml"),
        (["exams.cmmlu.subjects=[anatomi]"], "did you mean 'anatomy'"),
        (["model_name_or_path=models/nix"], "model models/nix does not exist"),
        (["adapter_name_or_path=saves/nix"], "adapter saves/nix does not exist"),
    ],
)
def test_mistakes_are_said_before_anything_heavy_is_loaded(
    root: Path, project: Path, arguments: list[str], message: str
) -> None:
    shutil.rmtree(project / FOLDER)
    code = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'lm_eval', 'datasets', 'numpy'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "scripts/evaluate.py", project / "evaluate.yaml", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list((project / FOLDER.parent).glob(".*"))
