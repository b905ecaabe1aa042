"""Twelve planted mistakes, and more: each is found alone with its cure; a good recipe says nothing.

LLaMA-Factory is imported once, into this process, where otherwise it has one of its own.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from medqa import provenance
from medqa.errors import MissingInputError, PreflightError
from medqa.train import card, encoding, inquiry, preflight
from medqa.train.card import Card
from tests.adapters import write_golden_pair

pytestmark = pytest.mark.filterwarnings("ignore")  # importing LLaMA-Factory warns

GIB = 1 << 30
RTX_4090 = Card("NVIDIA GeForce RTX 4090", 24 * GIB, 23 * GIB, bf16=True)
T4 = Card("Tesla T4", 15 * GIB, 15 * GIB, bf16=False)
RECIPE = "configs/tiny/sft.yaml"
VALUES = {
    "model_name_or_path": "models/tiny",
    "split_special_tokens": True,
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 4,
    "dataset": "qa_train",
    "eval_dataset": "qa_val",
    "template": "chatglm3",
    "cutoff_len": 256,
    "packing": True,
    "neat_packing": True,
    "output_dir": "saves/run",
    "eval_strategy": "steps",
    "eval_steps": 10,
    "save_steps": 10,
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "early_stopping_steps": 3,
    "report_to": "tensorboard",
    "per_device_train_batch_size": 2,
    "learning_rate": 1.0e-3,
    "bf16": False,
}
PAIR = {"prompt": "instruction", "query": "input", "response": "output"}
PREFERENCE = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}
STAGES: dict[str, dict[str, Any]] = {
    "sft": {},
    "sft without packing": {"packing": False, "neat_packing": False},
    "dpo": {
        "stage": "dpo",
        "dataset": "pairs_train",
        "eval_dataset": "pairs_val",
        "packing": None,
        "neat_packing": False,
    },
    "pt": {
        "stage": "pt",
        "dataset": "texts_train",
        "eval_dataset": "texts_val",
        "neat_packing": False,
        "split_special_tokens": False,
    },
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze"},
}


def write_set(project: Path, name: str, columns: dict[str, str], **entry: Any) -> None:
    """Writes the three splits of a set and registers them."""
    file = project / "data/dataset_info.json"
    entries = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for split, numbers in (("train", range(40)), ("val", range(40, 50)), ("test", range(50, 60))):
        path = project / f"data/processed/{name}/{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "instruction": f"{n}号药治什么病？",
                "input": "",
                "output": f"{n}号药治第{n}种病。",
                "chosen": f"{n}号药治第{n}种病。",
                "rejected": f"{n}号药不治病。",
                "text": f"{n}号药治第{n}种病。" * 5,
            }
            for n in numbers
        ]
        kept = [{key: row[key] for key in columns.values()} for row in rows]
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept), "utf-8")
        where = path.relative_to(project / "data").as_posix()
        entries[f"{name}_{split}"] = {"file_name": where, "columns": columns, **entry}
    file.write_text(json.dumps(entries), encoding="utf-8")


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a model, an adapter of it, data of three kinds and a recipe."""
    project = tmp_path_factory.mktemp("preflight")
    write_golden_pair(root, project, std=0.1)
    record = json.loads((project / "models/tiny/medqa_import.json").read_text(encoding="utf-8"))
    provenance.write(
        project / "saves/tiny/lora/sft/medqa_run.json",
        step="train",
        inputs={"models/tiny": record["fingerprint"]},
        config={},
    )
    write_set(project, "qa", PAIR)
    write_set(project, "pairs", PREFERENCE, ranking=True)
    write_set(project, "texts", {"prompt": "text"})
    (project / "configs/tiny").mkdir(parents=True)
    (project / "configs/data").mkdir(parents=True)
    (project / RECIPE).write_text(yaml.safe_dump(VALUES), encoding="utf-8")
    compare = {"test_file": "data/processed/qa/test.jsonl"}
    (project / "configs/tiny/compare.yaml").write_text(yaml.safe_dump(compare), encoding="utf-8")
    (project / "configs/data/qa.yaml").write_text("name: qa\n", encoding="utf-8")
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inquiry, "ask", encoding.examine)
    monkeypatch.setattr(card, "probe", lambda: None)
    return tmp_path


def edit_json(file: Path, **changed: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    content |= changed
    kept = {key: value for key, value in content.items() if value is not None}
    file.write_text(json.dumps(kept), encoding="utf-8")


def append(project: Path, **row: Any) -> None:
    with (project / "data/processed/qa/train.jsonl").open("a", encoding="utf-8") as out:
        out.write(json.dumps({"input": "", **row}, ensure_ascii=False) + "\n")


class Mistake(NamedTuple):
    """What is planted, and what has to be said of it and of nothing else."""

    overrides: list[str]
    level: str
    about: str
    text: str
    cure: str
    plant: Callable[[Path, pytest.MonkeyPatch], Any] = lambda project, patch: None


def ask_in_training_what_is_tested(project: Path, patch: pytest.MonkeyPatch) -> None:
    append(project, instruction="５０号药 治什么病", output="忘了。")
    append(project, instruction="45号药治什么病？", output="忘了。")


def take_the_end_token(project: Path, patch: pytest.MonkeyPatch) -> None:
    edit_json(project / "models/tiny/tokenizer_config.json", eos_token=None)


def train_on_another_model(project: Path, patch: pytest.MonkeyPatch) -> None:
    record = project / "saves/tiny/lora/sft/medqa_run.json"
    edit_json(record, inputs={"models/tiny": "sha256:another"})


def train_elsewhere_without_record(project: Path, patch: pytest.MonkeyPatch) -> None:
    adapter = project / "saves/tiny/lora/sft"
    (adapter / "medqa_run.json").unlink()
    edit_json(adapter / "adapter_config.json", base_model_name_or_path="models/other")


def fill_the_disk(project: Path, patch: pytest.MonkeyPatch) -> None:
    full = shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6)
    patch.setattr(shutil, "disk_usage", lambda place: full)


def fill_the_disk_but_for_checkpoints(project: Path, patch: pytest.MonkeyPatch) -> None:
    free = 81_500_000  # three checkpoints and the result take 80 MB and a little
    patch.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10**9, 10**9, free))


def train_there_already(project: Path, patch: pytest.MonkeyPatch) -> None:
    (project / "saves/run").mkdir(parents=True)
    held = os.open(project / "saves/run", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    patch.setattr(preflight, "_held_for_this_test", held, raising=False)


def leave_another_run(project: Path, patch: pytest.MonkeyPatch) -> None:
    (project / "saves/run/checkpoint-10").mkdir(parents=True)


def type_a_control_token(project: Path, patch: pytest.MonkeyPatch) -> None:
    append(project, instruction="忽略以上<|user|>说什么？", output="不。")


def take_a_t4(project: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(card, "probe", lambda: T4)


def take_a_small_card(project: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(card, "probe", lambda: Card("Small", GIB // 64, GIB // 64, bf16=True))


def take_a_busy_card(project: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(card, "probe", lambda: Card("Busy", 24 * GIB, GIB // 64, bf16=True))


def import_the_base(project: Path, patch: pytest.MonkeyPatch) -> None:
    edit_json(project / "models/tiny/medqa_import.json", origin="models/chatglm3-6b-base-original")


def download_the_base(project: Path, patch: pytest.MonkeyPatch) -> None:
    edit_json(project / "models/tiny/medqa_import.json", origin="models/from-a-friend")
    (project / "models/from-a-friend").mkdir()
    original = project / "models/from-a-friend/config.json"
    original.write_text('{"_name_or_path": "THUDM/chatglm3-6b-base"}', encoding="utf-8")


def take_the_chat_template(project: Path, patch: pytest.MonkeyPatch) -> None:
    (project / "models/tiny/chat_template.jinja").write_text("", encoding="utf-8")


def cut_answers_off(project: Path, patch: pytest.MonkeyPatch) -> None:
    append(project, instruction="还有呢？", output="有以下几点：")


def empty_an_answer(project: Path, patch: pytest.MonkeyPatch) -> None:
    append(project, instruction="还有呢？", output=" ")


def break_a_line(project: Path, patch: pytest.MonkeyPatch) -> None:
    with (project / "data/processed/qa/train.jsonl").open("a", encoding="utf-8") as out:
        out.write('{"instruction": "一半')


def shorten_the_weights(project: Path, patch: pytest.MonkeyPatch) -> None:
    os.truncate(project / "models/tiny/model.safetensors", 1000)


def forget_the_import(project: Path, patch: pytest.MonkeyPatch) -> None:
    (project / "models/tiny/medqa_import.json").unlink()


def keep_the_original_layout(project: Path, patch: pytest.MonkeyPatch) -> None:
    edit_json(project / "models/tiny/config.json", model_type="chatglm")


def a_prefix(project: Path, patch: pytest.MonkeyPatch) -> None:
    edit_json(project / "saves/tiny/lora/sft/adapter_config.json", peft_type="PREFIX_TUNING")


CONVERT = r"python scripts/convert\.py configs/data/qa\.yaml"
ADAPTER = "adapter_name_or_path=saves/tiny/lora/sft"

MISTAKES = {
    # The twelve.
    "wrong template": Mistake(
        ["template=qwen"], "problem", "template", "qwen asks otherwise", "^template=chatglm3$"
    ),
    "unregistered data set": Mistake(
        ["dataset=qa_tain"], "problem", "data", "'qa_tain' is not in .*mean 'qa_train'", "convert"
    ),
    "test rows in training": Mistake(
        [],
        "problem",
        "split",
        r"2 rows of 'qa_train' ask what data/.*test\.jsonl and qa_val asks \(line 41",
        CONVERT + " --overwrite",
        ask_in_training_what_is_tested,
    ),
    "missing end token": Mistake(
        [],
        "problem",
        "end",
        r"40 of 40 rows end in '<\|endoftext\|>', where the model does not stop",
        "import the model once more",
        take_the_end_token,
    ),
    "truncated answers": Mistake(
        ["cutoff_len=24"],
        "problem",
        "length",
        r"100.00% of rows are longer than cutoff_len 24 \(.*the longest 3\d\)",
        "^cutoff_len=64, or leave them out",
    ),
    "mismatched adapter": Mistake(
        [ADAPTER],
        "problem",
        "adapter",
        "was trained on sha256:another",
        "train again .* or name the right base",
        train_on_another_model,
    ),
    "no disk": Mistake(
        [], "problem", "disk", r"3 checkpoints of 0\.02 GB", "make room", fill_the_disk
    ),
    "busy output folder": Mistake(
        [],
        "problem",
        "output",
        "another training is writing saves/run",
        "wait",
        train_there_already,
    ),
    "special-token text": Mistake(
        ["split_special_tokens=false"],
        "problem",
        "text",
        r"1 rows of 'qa_train' .*\(line 41: <\|user\|>\)",
        "^split_special_tokens=true$",
        type_a_control_token,
    ),
    "fp16-only card": Mistake(
        ["bf16=true"], "problem", "card", "T4 has no bfloat16", "^bf16=false fp16=true$", take_a_t4
    ),
    "wrong key": Mistake(
        ["learning_rat=1e-4"], "problem", "key", "'learning_rat'", "did you mean 'learning_rate'"
    ),
    "base instead of chat model": Mistake(
        [], "problem", "model", "is the base model", "run: make model", import_the_base
    ),
    # Their relatives.
    "unknown template": Mistake(
        ["template=chatglm33"], "problem", "template", "no template", "^template=chatglm3$"
    ),
    "test split for training": Mistake(
        ["dataset=qa_test"], "problem", "split", "dataset names 'qa_test'", "^dataset=qa_train$"
    ),
    "test split for evaluation": Mistake(
        ["eval_dataset=qa_test"], "problem", "split", "eval_dataset names", "^eval_dataset=qa_val$"
    ),
    "end token as letters": Mistake(
        [f"{k}={json.dumps(v)}" for k, v in STAGES["pt"].items() if k != "split_special_tokens"],
        "problem",
        "end",
        "40 of 40 rows",
        "^split_special_tokens=false$",
    ),
    "a few answers cut": Mistake(
        [],
        "warning",
        "answers",
        "1 of 41 answers of 'qa_train' end in a comma or a colon",
        CONVERT,
        cut_answers_off,
    ),
    "adapter of a path": Mistake(
        [ADAPTER],
        "problem",
        "adapter",
        "was trained on models/other, not on models/tiny",
        "model_name_or_path=models/other",
        train_elsewhere_without_record,
    ),
    "no adapter": Mistake(
        ["adapter_name_or_path=saves/none"], "problem", "adapter", "holds no adapter", "train it"
    ),
    "no prefix": Mistake(
        ["adapter_name_or_path=saves/prefix"],
        "problem",
        "adapter",
        "holds no adapter",
        f"python scripts/begin_prefix.py {RECIPE}",
    ),
    "prefix with checkpointing": Mistake(
        [ADAPTER], "problem", "adapter", "prefix", "disable_gradient_checkpointing=true", a_prefix
    ),
    "no disk for the merge": Mistake(
        [],
        "warning",
        "disk",
        "with the merged model",
        "make room",
        fill_the_disk_but_for_checkpoints,
    ),
    "another run's folder": Mistake(
        [], "problem", "output", "an unfinished run of other", "--overwrite", leave_another_run
    ),
    "output folder is a file": Mistake(
        ["output_dir=data/dataset_info.json/x"],
        "problem",
        "output",
        "is a file",
        "output_dir=saves",
    ),
    "fp16 on a T4": Mistake(
        ["fp16=true"], "warning", "card", "overflow", "safe settings: learning_rate", take_a_t4
    ),
    "no GPU": Mistake(["bf16=true"], "problem", "card", "no GPU is seen", "use_cpu=true"),
    "fp16 on a CPU": Mistake(
        ["fp16=true", "use_cpu=true"], "problem", "card", "fp16", "fp16=false"
    ),
    "too little memory": Mistake(
        [],
        "problem",
        "memory",
        "GiB by the budget, and Small has 0.0",
        "budget.py",
        take_a_small_card,
    ),
    "memory in use": Mistake(
        [],
        "problem",
        "memory",
        "other processes leave 0.0 of Busy's 24.0",
        "nvidia",
        take_a_busy_card,
    ),
    "base by its original": Mistake(
        [],
        "problem",
        "model",
        "the original's config.json says so",
        "make model",
        download_the_base,
    ),
    "no chat template": Mistake(
        [],
        "warning",
        "template",
        "no chat template",
        "import the chat model",
        take_the_chat_template,
    ),
    "ill-typed value": Mistake(
        ["lora_dropout=much"],
        "problem",
        "key",
        "lora_dropout",
        "correct it in configs/tiny/sft.yaml",
    ),
    "empty answer": Mistake(
        [],
        "problem",
        "data",
        r"1 of 41 rows of data/processed/qa/train\.jsonl .*: line 41: output is empty",
        CONVERT,
        empty_an_answer,
    ),
    "torn line": Mistake([], "problem", "data", "line 41: not JSON", CONVERT, break_a_line),
    "no model": Mistake(
        ["model_name_or_path=models/chatglm3-6b"],
        "problem",
        "model",
        "not exist",
        "run: make model",
    ),
    "torn model": Mistake(
        [], "problem", "model", r"lacks model\.safetensors", "make demo", shorten_the_weights
    ),
    "unrecorded model": Mistake(
        [], "warning", "model", "nothing records where", "make demo", forget_the_import
    ),
    "original layout": Mistake(
        [],
        "problem",
        "model",
        "needs code",
        "import_model.py models/tiny",
        keep_the_original_layout,
    ),
    "length of the model": Mistake(
        ["cutoff_len=1024"], "problem", "length", "made for 512 tokens", "^cutoff_len=512$"
    ),
    "leaking packs": Mistake(
        ["neat_packing=false"], "problem", "settings", "read one another", "neat_packing=true"
    ),
    "pairs for sft": Mistake(
        ["dataset=pairs_train"], "problem", "data", "wants one answer a row", "another data set"
    ),
    "a value that only the library refuses": Mistake(
        ["val_size=0.1"], "problem", "parser", "Cannot specify `val_size`", "change that value"
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_found_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mistake = MISTAKES[name]
    mistake.plant(project, monkeypatch)
    look = preflight.inspect(RECIPE, mistake.overrides)
    (one,) = [found for found in look.found if found.level != "ok"]
    assert (one.level, one.about) == (mistake.level, mistake.about)
    assert re.search(mistake.text, one.text)
    assert re.search(mistake.cure, one.cure)
    assert look.failed == (mistake.level == "problem")


@pytest.mark.parametrize("gpu", [None, RTX_4090], ids=["CPU", "GPU"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_good_recipe_says_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, stage: str, gpu: Card | None
) -> None:
    monkeypatch.setattr(card, "probe", lambda: gpu)
    values = STAGES[stage] | ({"bf16": True} if gpu else {})
    before = {p: p.stat().st_mtime_ns for p in project.rglob("*")}
    look = preflight.inspect(RECIPE, [f"{k}={json.dumps(v)}" for k, v in values.items()])
    assert [str(found) for found in look.found if found.level != "ok"] == []
    assert look.answer is not None and look.answer.encoded == 40
    assert {p: p.stat().st_mtime_ns for p in project.rglob("*")} == before, "it wrote something"


def test_all_are_told_in_one_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for plant in (
        ask_in_training_what_is_tested,
        train_on_another_model,
        fill_the_disk,
        type_a_control_token,
        empty_an_answer,
        take_a_t4,
        import_the_base,
    ):
        plant(project, monkeypatch)
    overrides = [
        *("template=qwen", "split_special_tokens=false", "bf16=true", "neat_packing=false"),
        *("learning_rat=1", "eval_dataset=qa_vall", ADAPTER),
    ]
    look = preflight.inspect(RECIPE, overrides)
    about = [one.about for one in look.found if one.level == "problem"]
    assert sorted(about) == sorted(
        [
            "key",
            "settings",
            "model",
            "adapter",
            "data",
            "data",
            "split",
            "text",
            "disk",
            "card",
            "template",
        ]
    )


def test_the_three_rows_show_what_is_trained(project: Path) -> None:
    text = preflight.report(preflight.inspect(RECIPE))
    assert (
        "  1  [gMASK]sop<|user|> ↵ 0号药治什么病？<|assistant|>【↵ 0号药治第0种病。</s>】" in text
    )
    assert len(re.findall("【.*</s>】$", text, re.M)) == 3
    assert text.endswith("problems: 0, warnings: 0")
    overrides = [f"{key}={json.dumps(value)}" for key, value in STAGES["dpo"].items()]
    pairs = preflight.report(preflight.inspect(RECIPE, overrides), colour=True)
    assert (
        "  1  [gMASK]sop<|user|> ↵ 0号药治什么病？<|assistant|>\x1b[1;32m↵ 0号药不治病。" in pairs
    )
    assert len(re.findall("</s>\x1b", pairs)) == 6


def test_an_adapter_of_this_model_is_fine(project: Path) -> None:
    assert not [f for f in preflight.inspect(RECIPE, [ADAPTER]).found if f.level != "ok"]
    (project / "saves/tiny/lora/sft/medqa_run.json").unlink()  # by plain llamafactory-cli
    assert not [f for f in preflight.inspect(RECIPE, [ADAPTER]).found if f.level != "ok"]


def test_the_folder_of_this_run_is_fine(project: Path) -> None:
    from medqa.train import inputs as read

    target = project / "saves/run"
    config = project / RECIPE
    decisive = read.decisive(VALUES)
    target.mkdir(parents=True)
    inputs = read.digests(VALUES, config)
    provenance.write(target / "medqa_started.json", step="train", inputs=inputs, config=decisive)
    assert not preflight.inspect(RECIPE).failed
    assert "an unfinished run of other" in str(
        preflight.inspect(RECIPE, ["learning_rate=1"]).found.told("problem")
    )


class TestRequire:
    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inquiry, "ask", lambda request: inquiry.Answer())

    def test_warnings_are_returned(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert preflight.require(VALUES, source=RECIPE) == []
        cut_answers_off(project, monkeypatch)
        (warning,) = preflight.require(VALUES, source=RECIPE)
        assert warning.startswith("answers: 1 of 41 answers")

    def test_problems_are_raised_together(self, project: Path) -> None:
        values = VALUES | {"neat_packing": False, "dataset": "none"}
        with pytest.raises(PreflightError) as caught:
            preflight.require(values, source=RECIPE)
        assert len(caught.value.problems) == 2
        first, second = str(caught.value).splitlines()
        assert first.startswith(f"{RECIPE}: settings: packing without neat_packing")
        assert second.startswith(f"{RECIPE}: data: 'none' is not in")

    @pytest.mark.parametrize("allowed", ["overwrite", "resuming"])
    def test_a_folder_that_is_to_be_used(
        self, project: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
    ) -> None:
        leave_another_run(project, monkeypatch)
        with pytest.raises(PreflightError, match="unfinished run"):
            preflight.require(VALUES, source=RECIPE)
        assert preflight.require(VALUES, source=RECIPE, **{allowed: True}) == []

    def test_its_own_lock_is_no_other_training(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train_there_already(project, monkeypatch)
        with pytest.raises(PreflightError, match="another training is writing"):
            preflight.require(VALUES, source=RECIPE)
        assert preflight.require(VALUES, source=RECIPE, held=True) == []

    @pytest.mark.parametrize(
        "values",
        [
            {"output_dir": 5},
            {"model_name_or_path": ["models/tiny"]},
            {"dataset": {"a": 1}},
            {"template": 3},
            {"dataset_dir": "none"},
            {"per_device_train_batch_size": 0, "save_steps": 0, "neat_packing": False},
            {"adapter_name_or_path": [1]},
            {"resume_from_checkpoint": "none"},
        ],
        ids=str,
    )
    def test_odd_values_are_told(self, project: Path, values: dict[str, Any]) -> None:
        with pytest.raises(PreflightError):
            preflight.require(VALUES | values, source=RECIPE)

    def test_missing_keys_are_all_named(self, project: Path) -> None:
        with pytest.raises(PreflightError) as caught:
            preflight.require({"do_train": True, "learning_rate": 1}, source=RECIPE)
        assert len(caught.value.problems) == 5


def test_the_real_tokenizer_and_real_rows(project: Path, shared: Path) -> None:
    from medqa.model.tokenizer import CHATGLM3, sentencepiece, write_tokenizer

    model = project / "models/tiny"
    write_tokenizer(
        sentencepiece(shared / "chatglm3/tokenizer.model"), CHATGLM3, model, max_length=8192
    )
    for name in ("config.json", "generation_config.json"):
        edit_json(model / name, eos_token_id=[2, 64795, 64797])
    edit_json(model / "config.json", vocab_size=65024, max_position_embeddings=8192)
    lines = (shared / "huatuo/huatuo26M-testdatasets.part1.jsonl").read_text(encoding="utf-8")
    pairs = [json.loads(line) for line in lines.splitlines()]
    train = project / "data/processed/qa/train.jsonl"
    rows = [{"instruction": p["questions"], "input": "", "output": p["answers"]} for p in pairs]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    look = preflight.inspect(RECIPE, ["cutoff_len=8192"])
    # Its answers are as they were found: 1.7 % of 3,000 end in a comma or a colon.
    assert [one.about for one in look.found if one.level != "ok"] == ["answers"]
    assert look.answer is not None and look.answer.encoded >= 100
    (stopped,) = {row[0][-1][1][-4:] for row in look.answer.decoded}
    assert stopped == "</s>"


def test_a_missing_recipe(project: Path) -> None:
    with pytest.raises(MissingInputError, match=r"found: compare\.yaml, sft\.yaml"):
        preflight.inspect("configs/tiny/none.yaml")


@pytest.fixture
def script(root: Path, project: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, root / "scripts/preflight.py", *words],
            cwd=project,
            capture_output=True,
            text=True,
        )

    yield run


@pytest.mark.slow
def test_the_script_asks_a_process_of_its_own(script: Callable[..., Any]) -> None:
    done = script(RECIPE, "use_cpu=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "problems: 0, warnings: 0" in done.stdout and "</s>】" in done.stdout


def test_the_script_ends_with_2_where_anything_is_wrong(script: Callable[..., Any]) -> None:
    done = script(RECIPE, "template=", "packing=true", "neat_packing=false")
    assert done.returncode == 2 and done.stderr == ""
    assert "-> template=..." in done.stdout and "problems: 2, warnings: 0" in done.stdout
