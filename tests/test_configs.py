"""Every file under configs/: it loads, its head is true, and it agrees with its neighbours.

YAML has no variables here, so what must be the same in several files is held together by this.
"""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from medqa import config
from medqa.compare.exams_plan import EvaluatePlan, ExamTask
from medqa.compare.plan import ComparePlan
from medqa.compare.probes import ProbeFile
from medqa.data.recipe import Recipe
from medqa.export.publish import Publish
from medqa.model.budget import CHATGLM3_6B, GIB, peaks
from medqa.model.tiny import TinyConfig
from medqa.serve.guard import Guard
from medqa.serve.settings import Settings

ROOT = Path(__file__).parents[1]
RECIPES = ("chatglm3-6b", "tiny")
DATA = (
    "corpus",
    "example_other_domain",
    "huatuo",
    "paper",
    "preference",
    "sample",
    "sample_corpus",
    "sample_preference",
)
# Folders whose files are read through another file, not launched.
PARTS = {
    "probes": ("drug_facts.yaml", "emergencies.yaml", "general.yaml"),
    "exams": (
        "ceval.yaml",
        "cmb.yaml",
        "cmexam.yaml",
        "cmmlu.yaml",
        "open_answer.yaml",
        "statements.yaml",
    ),
    "accelerate": ("fsdp.yaml",),
    "deepspeed": ("zero2.json", "zero3.json"),
    "guard": ("guard.yaml", "signs.json"),
}
ALL = sorted(
    p.relative_to(ROOT).as_posix()
    for p in (ROOT / "configs").rglob("*")
    if p.is_file() and p.suffix != ".md"
)
PATHS = [path for path in ALL if Path(path).parent.name not in PARTS]

# The only keys in which a file of the two recipes may differ, and so the only ones to look at when
# the small run stands for the big one.
PLACES = {"model_name_or_path", "output_dir", "dataset", "eval_dataset"}
MACHINE = {"bf16", "preprocessing_num_workers", "dataloader_num_workers"}
SIZES = {
    "cutoff_len",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "num_train_epochs",
    "warmup_steps",
    "eval_steps",
    "save_steps",
}
COMMON = PLACES | MACHINE | SIZES
LORA = {"lora_rank", "lora_alpha"}
TRAINING = {
    "lora_sft": COMMON | LORA | {"enable_liger_kernel"},
    "loraplus_sft": COMMON | LORA | {"enable_liger_kernel"},
    "qlora_sft": COMMON | LORA | {"enable_liger_kernel"},
    "freeze_sft": COMMON | {"enable_liger_kernel"},
    "full_sft": COMMON | {"enable_liger_kernel", "deepspeed", "disable_gradient_checkpointing"},
    "prefix_sft": COMMON | {"enable_liger_kernel", "adapter_name_or_path"},
    "dpo": COMMON | LORA | {"disable_gradient_checkpointing"},
    "pretrain": COMMON | LORA | {"enable_liger_kernel"},
}
DIFFERENT = TRAINING | {
    "export": {"model_name_or_path", "adapter_name_or_path", "export_dir", "infer_dtype"},
    "chat": {"model_name_or_path", "adapter_name_or_path", "max_new_tokens"},
    "compare": {
        "model_name_or_path",
        "adapter_name_or_path",
        "test_file",
        "test_rows",
        "answer_rows",
        "cutoff_len",
        "probes",
        "questions",
        "max_new_tokens",
        "batch_size",
        "gate",
        "output_dir",
    },
    "evaluate": {"model_name_or_path", "adapter_name_or_path", "exams", "batch_size", "output_dir"},
    "serve": {
        "model_name_or_path",
        "adapter_name_or_path",
        "name",
        "max_new_tokens",
        "max_prompt_tokens",
        "max_prompt_characters",
        "max_body_bytes",
        "concurrency",
        "queue",
        "request_timeout",
        "shutdown_timeout",
    },
    "publish": {"model"},
}

# What reads a file, by its name: one of our schemas, or LLaMA-Factory's arguments for a purpose.
READERS: dict[str, type[BaseModel] | str] = dict.fromkeys(TRAINING, "train") | {
    "export": "infer",
    "chat": "infer",
    "compare": ComparePlan,
    "evaluate": EvaluatePlan,
    "serve": Settings,
    "publish": Publish,
    "make_tiny": TinyConfig,
}

# The kind of rows that a stage of training reads.
KINDS = {"sft": "pairs", "dpo": "preference", "pt": "text"}


def load(path: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Returns the values of a config as the program that reads it does."""
    reader = Recipe if Path(path).parent.name == "data" else READERS[Path(path).stem]
    if reader == "train" or reader == "infer":
        return config.load_llamafactory(ROOT / path, overrides or [], reader)
    assert not isinstance(reader, str)
    return config.load(ROOT / path, overrides or [], reader).model_dump()


def raw(recipe: str, name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(
        (ROOT / f"configs/{recipe}/{name}.yaml").read_text(encoding="utf-8")
    )
    return values


def head(path: str) -> str:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:first])


def test_these_are_all() -> None:
    assert (
        sorted(
            [f"configs/data/{name}.yaml" for name in DATA]
            + [f"configs/{recipe}/{name}.yaml" for recipe in RECIPES for name in DIFFERENT]
            + [f"configs/{part}/{name}" for part, names in PARTS.items() for name in names]
            + ["configs/tiny/make_tiny.yaml"]
        )
        == ALL
    )


def mentions(text: str) -> list[str]:
    """Returns the files of ours that `text` names."""
    return re.findall(r"(?:scripts|configs|data/sample)/[\w./-]+\.(?:py|yaml|jsonl|json|txt)", text)


@pytest.mark.parametrize("path", sorted(set(ALL) - set(PATHS)))
def test_a_part_loads(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    if "/probes/" in path:
        assert config.load(ROOT / path, [], ProbeFile)
    elif "/exams/" in path:
        assert config.load(ROOT / path, [], ExamTask)
    elif path == "configs/guard/guard.yaml":
        assert Guard.load(ROOT / path)
    else:
        assert json.loads(text) if path.endswith(".json") else yaml.safe_load(text)


@pytest.mark.parametrize("path", sorted(set(ALL) - set(PATHS)))
def test_a_part_and_its_readers_name_each_other(path: str) -> None:
    """A JSON file has no comments: there it is the readers alone that name it."""
    readers = [f for f in (ROOT / "configs").rglob("*.*") if f.suffix in (".yaml", ".md")]
    if path.endswith(".json"):
        assert any(path in file.read_text(encoding="utf-8") for file in readers)
        return
    named = mentions(head(path))
    assert named, "the head says what reads it"
    for file in named:
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("path", PATHS)
def test_it_loads(path: str) -> None:
    assert load(path)


@pytest.mark.parametrize("path", PATHS)
def test_nothing_runs_code_of_a_checkpoint(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert "trust_remote_code" not in text
    assert "${" not in text, "LLaMA-Factory does not resolve interpolation"


@pytest.mark.parametrize("path", PATHS)
def test_numbers_are_numbers(path: str) -> None:
    """PyYAML reads 1e-4 as text; written 1.0e-4 it is a number to every reader."""
    values = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    texts = [v for v in values.values() if isinstance(v, str)]
    assert not [v for v in texts if re.fullmatch(r"\d*\.?\d+(e-?\d+)?", v)]


@pytest.mark.parametrize("path", PATHS)
def test_the_head_is_true(path: str) -> None:
    text = head(path)
    commands = re.findall(
        r"(?:python (scripts/\S+\.py)|llamafactory-cli (\w+)) (\S+\.yaml)(.*)", text
    )
    for script, verb, file, rest in commands:
        assert (ROOT / script).is_file() if script else verb in ("train", "chat"), text
        overrides = [word for word in rest.split() if re.fullmatch(r"[\w.]+=\S+", word)]
        load(file, overrides)
        flags = re.findall(r"--[\w-]+", rest.replace("[", " ").replace("]", " "))
        source = (ROOT / script).read_text(encoding="utf-8") if script else ""
        assert all(flag in source or flag == "--overwrite" for flag in flags)
    assert path in {file for _, _, file, _ in commands}, "the head says how to launch this file"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target, words in re.findall(r"\bmake ([a-z_-]+)((?: +[A-Z]+=\S+)*)", text):
        assert re.search(rf"^{target}:", makefile, re.M), f"make {target}"
        for variable, value in re.findall(r"([A-Z]+)=(\S+)", words):
            assert re.search(rf"^{variable} \?=", makefile, re.M), variable
            known = {"RECIPE": RECIPES, "METHOD": TRAINING}.get(variable)
            assert known is None or value.rstrip(",.)") in known
    everything = (ROOT / path).read_text(encoding="utf-8")
    for named in mentions(everything):
        assert (ROOT / named).is_file(), named


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_folder_agrees_with_itself(recipe: str) -> None:
    sft = raw(recipe, "lora_sft")
    for name in ("export", "chat", "compare", "evaluate", "serve"):
        values = raw(recipe, name)
        assert values["adapter_name_or_path"] == sft["output_dir"], name
        assert values["model_name_or_path"] == sft["model_name_or_path"], name
    for name in ("export", "chat"):
        assert raw(recipe, name)["template"] == "chatglm3", name
        assert raw(recipe, name)["finetuning_type"] == sft["finetuning_type"], name
    assert raw(recipe, "chat")["split_special_tokens"] is True
    assert raw(recipe, "compare")["cutoff_len"] == sft["cutoff_len"]
    assert raw(recipe, "export")["export_dir"] != sft["model_name_or_path"]
    assert raw(recipe, "dpo")["model_name_or_path"] == raw(recipe, "export")["export_dir"]
    assert raw(recipe, "publish")["model"] == raw(recipe, "export")["export_dir"]


TRAINED = [(recipe, name) for recipe in RECIPES for name in TRAINING]


@pytest.mark.parametrize(("recipe", "name"), TRAINED)
def test_a_training_keeps_the_house_rules(recipe: str, name: str) -> None:
    values = raw(recipe, name)
    stage = values["stage"]
    method = values["finetuning_type"]
    if name in ("loraplus_sft", "qlora_sft", "prefix_sft"):  # LoRA to LLaMA-Factory
        method = name.removesuffix("_sft")
    assert values["output_dir"] == f"saves/{recipe}/{method}/{stage}"
    assert values["template"] == "chatglm3"
    assert values["split_special_tokens"] is (stage != "pt"), "its </s> would be four letters"
    assert bool(values.get("packing")) is (stage in ("sft", "pt"))
    assert values.get("neat_packing") is (True if stage == "sft" else None)
    assert values["report_to"] == "tensorboard"
    assert not ({"fp16", "val_size", "overwrite_output_dir", "max_samples"} & set(values))


@pytest.mark.parametrize(("recipe", "name"), TRAINED)
def test_a_training_keeps_the_best_checkpoint_and_stops_early(recipe: str, name: str) -> None:
    values = raw(recipe, name)
    assert values["eval_strategy"] == "steps"
    assert values["eval_steps"] == values["save_steps"], "the best step has a checkpoint"
    assert values["load_best_model_at_end"] is True
    assert values["metric_for_best_model"] == "eval_loss"
    assert values["early_stopping_steps"] >= 3, "one or two evaluations may be noise"
    assert values["per_device_eval_batch_size"] <= values["per_device_train_batch_size"]


@cache
def data_yamls() -> dict[str, dict[str, Any]]:
    """Returns the data YAMLs by the name that they give."""
    loaded = [load(f"configs/data/{name}.yaml") for name in DATA]
    return {values["name"]: values for values in loaded}


@pytest.mark.parametrize(("recipe", "name"), TRAINED)
def test_a_training_reads_what_some_yaml_makes(recipe: str, name: str) -> None:
    """Trained on the split for training, watched on that for validation; the test split never."""
    made = data_yamls()
    values = raw(recipe, name)
    assert values["dataset"].endswith("_train")
    assert values["eval_dataset"].endswith("_val")
    source = made[values["dataset"].removesuffix("_train")]
    assert values["eval_dataset"].removesuffix("_val") == source["name"]
    assert source["val_share"], "it makes a validation split"
    assert source["kind"] == KINDS[values["stage"]]
    assert source["cutoff_len"] in (None, values["cutoff_len"])


@pytest.mark.parametrize(("recipe", "name"), TRAINED)
def test_the_batch_in_the_comments_is_that_of_the_values(recipe: str, name: str) -> None:
    text = (ROOT / f"configs/{recipe}/{name}.yaml").read_text(encoding="utf-8")
    values = raw(recipe, name)
    said = re.search(
        r"# (?:(\d+) cards x )?(\d+) (packs?|pairs?)[^\n]*?([\d,]+) (?:tokens|pairs) a step", text
    )
    if values["stage"] == "dpo" and recipe == "tiny":
        return
    assert said, "the effective batch, worked out"
    cards, micro, what, total = said.groups()
    assert int(micro) == values["per_device_train_batch_size"]
    batch = int(cards or 1) * int(micro) * values["gradient_accumulation_steps"]
    batch *= values["cutoff_len"] if what.startswith("pack") else 1
    assert int(total.replace(",", "")) == batch


@pytest.mark.parametrize("name", TRAINING)
def test_the_memory_in_the_comments_is_the_budgets(name: str) -> None:
    """For weights stored in bfloat16; and what is said to fit a card leaves 2 GiB of it."""
    path = f"configs/chatglm3-6b/{name}.yaml"
    text = (ROOT / path).read_text(encoding="utf-8")
    said = re.search(r"# Memory: ([\d.]+) GiB", text)
    if name in ("full_sft", "prefix_sft"):
        assert not said, "several cards, or a prefix of some length: not the budget's to say"
        return
    assert said
    total = peaks(load(path), CHATGLM3_6B)["train"].total / GIB
    assert float(said[1]) == pytest.approx(total, abs=0.06)
    card = re.search(r"for one\s(?:#\s)?(\d+) GB card", text)
    assert card
    assert total <= int(card[1]) - 2


def test_sft_recipes_take_steps_of_one_size() -> None:
    """What the comparison of methods rests on."""
    sizes = set()
    for name in (name for name in TRAINING if name.endswith("_sft")):
        values = raw("chatglm3-6b", name)
        cards = 8 if name == "full_sft" else 1
        batch = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"]
        sizes.add(cards * batch * values["cutoff_len"])
    assert len(sizes) == 1


def test_no_two_recipes_write_to_one_place() -> None:
    keys = dict.fromkeys((*TRAINING, "compare", "evaluate"), "output_dir")
    keys["export"] = "export_dir"
    places = [raw(recipe, name)[key] for recipe in RECIPES for name, key in keys.items()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("recipe", RECIPES)
def test_compare_measures_the_test_split_of_what_was_trained(recipe: str) -> None:
    names = {raw(recipe, "lora_sft")["dataset"].removesuffix("_train")}
    file = Path(raw(recipe, "compare")["test_file"])
    assert file.as_posix() == f"data/processed/{file.parent.name}/test.jsonl"
    assert file.parent.name in names


@pytest.mark.parametrize("name", DIFFERENT)
def test_tiny_differs_only_in_these_keys(name: str) -> None:
    big, tiny = raw("chatglm3-6b", name), raw("tiny", name)
    assert list(big) == list(tiny), "the same keys in the same order"
    assert {key for key in big if big[key] != tiny[key]} == DIFFERENT[name]


def test_the_first_question_is_the_source_papers() -> None:
    for recipe in RECIPES:
        assert raw(recipe, "compare")["questions"][0] == "饮酒以后可以服用西地那非吗"


def test_the_webui_and_the_makefile_know_the_same_recipes() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^RECIPE \?= chatglm3-6b$", makefile, re.M)
    assert re.search(r"^METHOD \?= lora_sft$", makefile, re.M)
    for name in ("$(METHOD)", "export", "compare", "evaluate", "publish", "serve"):
        assert f"configs/$(RECIPE)/{name}.yaml" in makefile


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # importing LLaMA-Factory warns
@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("recipe", RECIPES)
def test_llamafactory_takes_the_arguments(
    recipe: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own parser and its own checks; a CPU takes bf16 only when it is told to be one."""
    import torch
    from llamafactory.hparams import get_train_args

    monkeypatch.chdir(tmp_path)
    given = raw(recipe, name)
    if not torch.cuda.is_available():
        given |= {"use_cpu": True}
    # Under torchrun alone, and with DeepSpeed, which is not among what we install.
    given |= {"deepspeed": None}
    model, data, training, finetuning, _ = get_train_args(given)
    arguments = [model, data, training, finetuning]
    for key in ("model_name_or_path", "template", "neat_packing", "learning_rate", "eval_steps"):
        if key in given:
            assert [vars(a)[key] for a in arguments if key in vars(a)] == [given[key]], key
    assert finetuning.early_stopping_steps == given["early_stopping_steps"]
    assert training.load_best_model_at_end
    assert training.greater_is_better is False
    assert data.packing is bool(given.get("packing"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ("export", "chat"))
@pytest.mark.parametrize("recipe", RECIPES)
def test_llamafactory_takes_the_arguments_of_the_rest(recipe: str, name: str) -> None:
    from llamafactory.hparams import get_infer_args

    assert get_infer_args(raw(recipe, name))[1].template == "chatglm3"


# Whether there is a card that computes in bfloat16 is the only thing that is pretended.
CARD = """
    import sys
    import torch
    import transformers.training_args

    if not torch.cuda.is_available():
        transformers.training_args.is_torch_bf16_gpu_available = lambda: True
    from llamafactory.cli import main

    sys.argv = ["llamafactory-cli", "train", "configs/chatglm3-6b/lora_sft.yaml"]
    main()
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_llamafactory_trains_the_6b_up_to_its_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The literal file, from the arguments over the packed data to the model's class."""
    from medqa.model.importer import import_model

    shutil.copytree(root / "configs", tmp_path / "configs")
    model = tmp_path / "models/chatglm3-6b"
    import_model(root / "tests/fixtures/golden", model, dtype="keep", origin="golden")
    (model / "model.safetensors").unlink()
    rows = [{"instruction": f"问题{n}？", "input": "", "output": f"回答{n}。"} for n in range(20)]
    (tmp_path / "data").mkdir()
    entries = {}
    for split in ("train", "val"):
        (tmp_path / f"data/{split}.json").write_text(json.dumps(rows), encoding="utf-8")
        entries[f"huatuo_{split}"] = {"file_name": f"{split}.json"}
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CARD)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("OSError: Error no file named model.safetensors")
    assert done.stderr.splitlines()[-1].endswith("found in directory models/chatglm3-6b.")
