"""What LlamaBoard has filled in: the model, the recipe on offer and on the page."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqa.train import prefill, webui

RECIPE = {
    "model_name_or_path": "models/tiny",
    "template": "chatglm3",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "dataset": "sample_train, general_train",
    "dataset_dir": "data",
    "output_dir": "saves/tiny/lora/sft",
    "learning_rate": "1e-4",
    "per_device_train_batch_size": 3,
    "warmup_steps": 5,
    "lora_rank": 4,
    "max_steps": 7,
    "split_special_tokens": True,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an imported tiny model, its recipe, and its data sets converted."""
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    for variable in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_SHARE"):
        monkeypatch.delenv(variable, raising=False)
    checkpoint(tmp_path / "models/tiny")
    write_recipe(tmp_path, RECIPE)
    register(tmp_path, "sample_train", "general_train", "sample_val")
    return tmp_path


def checkpoint(folder: Path, kind: str = "glm") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    (folder / "medqa_import.json").write_text("{}", encoding="utf-8")
    return folder


def write_recipe(project: Path, values: dict[str, Any], folder: str = "tiny") -> None:
    recipe = project / "configs" / folder / "lora_sft.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")


def register(project: Path, *names: str) -> None:
    (project / "data").mkdir(exist_ok=True)
    entries = {name: {"file_name": f"{name}.jsonl"} for name in names}
    (project / "data/dataset_info.json").write_text(json.dumps(entries), encoding="ascii")


def settings(project: Path) -> dict[str, Any]:
    text = (project / "llamaboard_cache/user_config.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def test_prefill_on_a_new_project(project: Path) -> None:
    prefill.write(project / "models/tiny", chosen=False)
    assert settings(project) == {
        "lang": "zh",
        "hub_name": None,
        "last_model": "ChatGLM3-6B-Chat",
        "path_dict": {"ChatGLM3-6B-Chat": str(project / "models/tiny")},
        "cache_dir": None,
    }


def test_prefill_keeps_what_the_user_set(project: Path) -> None:
    file = project / "llamaboard_cache/user_config.yaml"
    file.parent.mkdir()
    mine = checkpoint(project / "elsewhere")
    before = {
        "lang": "en",
        "last_model": "Qwen3-0.6B-Thinking",
        "path_dict": {"ChatGLM3-6B-Chat": str(mine), "Other": "x/y"},
    }
    file.write_text(yaml.safe_dump(before), encoding="utf-8")
    prefill.write(project / "models/tiny", chosen=False)
    assert settings(project) == before | {"hub_name": None, "cache_dir": None}

    prefill.write(project / "models/tiny", chosen=True)
    after = settings(project)
    assert after["last_model"] == "ChatGLM3-6B-Chat"
    assert after["path_dict"] == {
        "ChatGLM3-6B-Chat": str(project / "models/tiny"),
        "Other": "x/y",
    }


def test_an_import_of_the_6b_takes_the_place_of_the_tiny_one(project: Path) -> None:
    prefill.write(webui._checkpoint(None), chosen=False)
    big = checkpoint(project / "models/chatglm3-6b")
    prefill.write(webui._checkpoint(None), chosen=False)
    assert settings(project)["path_dict"]["ChatGLM3-6B-Chat"] == str(big)


def test_the_recipe_is_offered_anew_at_every_start_and_the_users_is_kept(project: Path) -> None:
    prefill.write(project / "models/tiny", chosen=False)
    offer = project / "llamaboard_config/medqa-tiny.yaml"
    values = yaml.safe_load(offer.read_text(encoding="utf-8"))
    assert values["train.dataset"] == ["sample_train", "general_train"]
    assert values["train.learning_rate"] == "0.0001"
    assert values["train.batch_size"] == 3
    assert values["train.compute_type"] == "fp32"
    assert values["train.warmup_steps"] == 5
    assert json.loads(values["train.extra_args"]) == {"max_steps": 7, "split_special_tokens": True}

    write_recipe(project, RECIPE | {"lora_rank": 16})
    prefill.write(project / "models/tiny", chosen=False)
    assert yaml.safe_load(offer.read_text(encoding="utf-8"))["train.lora_rank"] == 16

    offer.write_text("edited: 1\n", encoding="utf-8")  # as the page saves it, without our head
    prefill.write(project / "models/tiny", chosen=False)
    assert offer.read_text(encoding="utf-8") == "edited: 1\n"


def test_bf16_and_liger_are_chosen_by_their_own_elements() -> None:
    values = prefill.elements({"bf16": True, "enable_liger_kernel": True})
    assert values["train.compute_type"] == "bf16"
    assert values["top.booster"] == "liger_kernel"
    assert values["train.extra_args"] == "{}"


def test_every_row_is_trained_on_unless_the_recipe_says_otherwise() -> None:
    """The page's own default is 100,000, and it has no word for all."""
    assert int(prefill.elements({})["train.max_samples"]) > 500_000_000
    assert prefill.elements({"max_samples": 20})["train.max_samples"] == "20"


def test_the_page_shows_the_recipe_of_its_model(project: Path) -> None:
    six = RECIPE | {"model_name_or_path": "models/chatglm3-6b", "lora_rank": 8}
    write_recipe(project, six, "chatglm3-6b")
    assert prefill.values(project / "models/tiny")["train.lora_rank"] == 4
    assert prefill.values(project / "models/chatglm3-6b")["train.lora_rank"] == 8
    other = prefill.values(project / "models/chatglm3-6b-32k")
    assert other["train.lora_rank"] == 8
    assert other["export.export_dir"] == "models/chatglm3-6b-32k-webui"
    # Set again, it would clear the data set.
    assert "train.training_stage" not in other


def test_without_a_recipe_the_page_stays_as_it_is(project: Path) -> None:
    (project / "configs/tiny/lora_sft.yaml").unlink()
    assert prefill.values(project / "models/tiny") == {}


def test_what_is_typed_into_the_chat_is_text_and_it_answers_as_make_chat(project: Path) -> None:
    chat = {"template": "chatglm3", "do_sample": False, "max_new_tokens": 32}
    (project / "configs/tiny/chat.yaml").write_text(yaml.safe_dump(chat), encoding="utf-8")
    values = prefill.values(project / "models/tiny")
    assert json.loads(values["infer.extra_args"])["split_special_tokens"] is True
    assert values["infer.max_new_tokens"] == 32
    assert values["infer.top_p"] == values["infer.temperature"] == 0.01


def test_data_that_is_not_there_is_left_out_and_said(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = {"eval_dataset": "sample_val", "eval_strategy": "steps", "eval_steps": 10}
    write_recipe(project, RECIPE | watching)
    values = prefill.values(project / "models/tiny")
    assert values["train.dataset"] == ["sample_train", "general_train"]
    assert json.loads(values["train.extra_args"])["eval_dataset"] == "sample_val"
    assert capsys.readouterr().err == ""

    register(project, "sample_train")
    values = prefill.values(project / "models/tiny")
    assert values["train.dataset"] == ["sample_train"]
    assert json.loads(values["train.extra_args"]) == {"max_steps": 7, "split_special_tokens": True}
    assert "general_train, sample_val of configs/tiny" in capsys.readouterr().err


def test_a_page_left_on_another_model_is_left_alone(project: Path) -> None:
    assert prefill.write(project / "models/tiny", chosen=False) == project / "models/tiny"
    file = project / "llamaboard_cache/user_config.yaml"
    file.write_text(yaml.safe_dump(settings(project) | {"last_model": "Other"}), encoding="utf-8")
    assert prefill.write(project / "models/tiny", chosen=False) is None
