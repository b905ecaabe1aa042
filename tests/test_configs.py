"""Every YAML under configs/: it loads, its head is true, and it agrees with its neighbours.

YAML has no variables here, so what must be the same in several files is held together by this.
"""

import json
import re
import shutil
import subprocess
import sys
import textwrap
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
from medqa.model.tiny import TinyConfig

ROOT = Path(__file__).parents[1]
RECIPES = ("chatglm3-6b", "tiny")
DATA = ("example_other_domain", "huatuo", "paper", "sample")
# Folders whose files are read through another config, not launched.
PARTS = {
    "probes": ("drug_facts", "emergencies", "general"),
    "exams": ("ceval", "cmb", "cmexam", "cmmlu", "open_answer", "statements"),
}
ALL = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "configs").rglob("*.y*ml"))
PATHS = [path for path in ALL if Path(path).parent.name not in PARTS]

# What reads a file, by its name: one of our schemas, or LLaMA-Factory's arguments for a purpose.
READERS: dict[str, type[BaseModel] | str] = {
    "lora_sft": "train",
    "export": "infer",
    "chat": "infer",
    "compare": ComparePlan,
    "evaluate": EvaluatePlan,
    "make_tiny": TinyConfig,
}

# The only keys in which a file of the two recipes may differ, and so the only ones to look at when
# the small run stands for the big one.
DIFFERENT = {
    "lora_sft": {
        "model_name_or_path",
        "output_dir",
        "dataset",
        "enable_liger_kernel",
        "lora_rank",
        "lora_alpha",
        "cutoff_len",
        "preprocessing_num_workers",
        "dataloader_num_workers",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "num_train_epochs",
        "warmup_steps",
        "bf16",
        "disable_gradient_checkpointing",
    },
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
}


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
            + [f"configs/{part}/{name}.yaml" for part, names in PARTS.items() for name in names]
            + ["configs/tiny/make_tiny.yaml"]
        )
        == ALL
    )


@pytest.mark.parametrize("path", sorted(set(ALL) - set(PATHS)))
def test_a_part_loads_and_its_head_names_real_files(path: str) -> None:
    schema = ProbeFile if "/probes/" in path else ExamTask
    assert config.load(ROOT / path, [], schema)
    text = head(path)
    named = re.findall(r"(?:scripts|configs|data/sample)/[\w./-]+\.(?:py|yaml|jsonl)", text)
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
    assert not [v for v in texts if re.fullmatch(r"[\d.]+(e-?\d+)?", v)]


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
            assert variable != "RECIPE" or value.rstrip(",.)") in RECIPES
    everything = (ROOT / path).read_text(encoding="utf-8")
    for named in re.findall(
        r"(?:scripts|configs|data/sample)/[\w./-]+\.(?:py|yaml|jsonl|txt)", everything
    ):
        assert (ROOT / named).is_file(), named


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_folder_agrees_with_itself(recipe: str) -> None:
    sft = raw(recipe, "lora_sft")
    for name in ("export", "chat", "compare", "evaluate"):
        values = raw(recipe, name)
        assert values["adapter_name_or_path"] == sft["output_dir"], name
        assert values["model_name_or_path"] == sft["model_name_or_path"], name
    for name in ("lora_sft", "export", "chat"):
        assert raw(recipe, name)["template"] == "chatglm3", name
        assert raw(recipe, name)["finetuning_type"] == sft["finetuning_type"], name
    for name in ("lora_sft", "chat"):
        assert raw(recipe, name)["split_special_tokens"] is True, name
    compare = raw(recipe, "compare")
    assert compare["cutoff_len"] == sft["cutoff_len"]
    assert sft["neat_packing"] or not sft["packing"], "packed neighbours must not see each other"
    assert raw(recipe, "export")["export_dir"] != sft["model_name_or_path"]


def test_no_two_recipes_write_to_one_place() -> None:
    keys = dict.fromkeys(("lora_sft", "compare", "evaluate"), "output_dir")
    keys["export"] = "export_dir"
    places = [raw(recipe, name)[key] for recipe in RECIPES for name, key in keys.items()]
    assert len(set(places)) == len(places)


def datasets(recipe: str) -> list[str]:
    sft = raw(recipe, "lora_sft")
    given = [sft[key] for key in ("dataset", "eval_dataset") if key in sft]
    return [name.strip() for text in given for name in text.split(",")]


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_reads_training_data_that_some_yaml_makes(recipe: str) -> None:
    made = {load(f"configs/data/{name}.yaml")["name"] for name in DATA}
    assert datasets(recipe)
    for name in datasets(recipe):
        assert name.endswith("_train"), "never a test split"
        assert name.removesuffix("_train") in made
    assert "val_size" not in raw(recipe, "lora_sft"), "splits are made by convert, not row by row"


@pytest.mark.parametrize("recipe", RECIPES)
def test_compare_measures_the_test_split_of_what_was_trained(recipe: str) -> None:
    names = {name.removesuffix("_train") for name in datasets(recipe)}
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
    for name in ("lora_sft", "export", "compare", "evaluate", "chat"):
        assert f"configs/$(RECIPE)/{name}.yaml" in makefile


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # importing LLaMA-Factory warns
@pytest.mark.parametrize("recipe", RECIPES)
def test_llamafactory_takes_the_arguments(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own parser and its own checks; a CPU takes bf16 only when it is told to be one."""
    import torch
    from llamafactory.hparams import get_infer_args, get_train_args

    monkeypatch.chdir(tmp_path)
    cpu = {} if torch.cuda.is_available() else {"use_cpu": True}
    model, data, training, *_ = get_train_args(raw(recipe, "lora_sft") | cpu)
    assert model.model_name_or_path == raw(recipe, "lora_sft")["model_name_or_path"]
    assert data.template == "chatglm3"
    assert data.neat_packing
    assert training.learning_rate == raw(recipe, "lora_sft")["learning_rate"]
    for name in ("export", "chat"):
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
    (tmp_path / "data/train.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "data/dataset_info.json").write_text(
        '{"huatuo_train": {"file_name": "train.json"}}', encoding="utf-8"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CARD)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("OSError: Error no file named model.safetensors")
    assert done.stderr.splitlines()[-1].endswith("found in directory models/chatglm3-6b.")
