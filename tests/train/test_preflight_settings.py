"""Settings that cannot be, what a checkpoint takes, and what a card can do; no LLaMA-Factory."""

import json
from pathlib import Path
from typing import Any

import pytest

from medqa.train import base, card, room, settings
from medqa.train.card import Card
from medqa.train.findings import Finding, Findings

GIB = 1 << 30
GOOD = {
    "model_name_or_path": "models/chatglm3-6b",
    "dataset": "a",
    "template": "chatglm3",
    "stage": "sft",
    "output_dir": "saves/a",
    "do_train": True,
}
CHATGLM3 = {
    "num_hidden_layers": 28,
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 65024,
    "max_position_embeddings": 8192,
    "dtype": "float16",
}


def told(values: dict[str, Any]) -> list[tuple[str, str]]:
    found = Findings()
    settings.look(GOOD | values, found)
    return [(one.text, one.cure) for one in found if one.level == "problem"]


@pytest.mark.parametrize(
    ("values", "cure"),
    [
        ({"do_train": False}, "do_train=true"),
        ({"cutoff_len": 0}, "cutoff_len=1"),
        ({"trust_remote_code": True}, "trust_remote_code=false"),
        ({"pissa_init": True}, "pissa_iter=-1"),
        ({"fp16": True, "bf16": True}, "fp16=false"),
        ({"bf16": True, "pure_bf16": True}, "pure_bf16=false"),
        ({"packing": True}, "neat_packing=true"),
        ({"stage": "dpo", "neat_packing": True}, "neat_packing=false"),
        ({"early_stopping_steps": 3}, "load_best_model_at_end=true"),
        ({"load_best_model_at_end": True}, "eval_strategy=steps"),
        (
            {
                "load_best_model_at_end": True,
                "eval_strategy": "steps",
                "eval_dataset": "b",
                "eval_steps": 30,
                "save_steps": 100,
            },
            "save_steps=90",
        ),
        ({"eval_strategy": "epoch"}, "eval_dataset=<name>_val"),
        ({"deepspeed": "none.json"}, "deepspeed=<a JSON file>"),
    ],
    ids=str,
)
def test_a_contradiction_has_its_cure(values: dict[str, Any], cure: str) -> None:
    problems = told(values)
    if "deepspeed" in values:  # it may not be installed
        problems = [one for one in problems if "package" not in one[0]]
    assert [one[1] for one in problems] == [cure]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"neat_packing": True},
        {"packing": True, "neat_packing": True},
        {"stage": "pt", "packing": True},
        {"stage": "dpo", "packing": False},
        {"pissa_init": True, "pissa_iter": -1},
        {"load_best_model_at_end": True, "save_strategy": "best"},
        {
            "load_best_model_at_end": True,
            "eval_strategy": "steps",
            "val_size": 0.1,
            "eval_steps": 0.1,
            "save_steps": 0.2,
        },
        {"report_to": "tensorboard"},
        {"report_to": ["tensorboard"]},
        {"report_to": "none"},
    ],
    ids=str,
)
def test_what_goes_together(values: dict[str, Any]) -> None:
    assert told(values) == []


@pytest.mark.parametrize(
    ("values", "package"),
    [
        ({"quantization_bit": 4}, "bitsandbytes"),
        ({"flash_attn": "fa2"}, "flash_attn"),
        ({"report_to": "wandb"}, "wandb"),
        ({"report_to": ["tensorboard", "mlflow"]}, "mlflow"),
    ],
    ids=str,
)
def test_a_package_that_is_not_there(
    values: dict[str, Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.importlib.util, "find_spec", lambda name: None)
    assert [cure for _, cure in told(values)] == [f"run: uv pip install {package}"]
    monkeypatch.setattr(settings.importlib.util, "find_spec", lambda name: name)
    assert told(values) == []


@pytest.mark.parametrize("given", ["a, b", ["a", "b"], "a,b"])
def test_names(given: object) -> None:
    assert settings.names(given) == ["a", "b"]
    assert settings.names(None) == []


@pytest.mark.parametrize(
    ("values", "gigabytes"),
    [
        ({"lora_rank": 8}, 0.20),  # 16.7 million numbers, 12 bytes each
        ({"lora_rank": 8, "save_only_model": True}, 0.067),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 2}, 16.7),
        ({"finetuning_type": "full", "bf16": True}, 74.9),  # 6.24 billion, 12 bytes each
        ({"finetuning_type": "full", "bf16": True, "deepspeed": "x.json"}, 87.4),
        ({"finetuning_type": "full", "pure_bf16": True}, 37.5),
    ],
    ids=str,
)
def test_what_a_checkpoint_of_the_6b_takes(values: dict[str, Any], gigabytes: float) -> None:
    checkpoint, final = room.checkpoint_bytes(values, CHATGLM3)
    assert (checkpoint - room.SMALL_FILES) / 1e9 == pytest.approx(gigabytes, rel=0.05)
    assert final <= checkpoint


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({"save_strategy": "no"}, 0),
        ({"save_strategy": "epoch", "num_train_epochs": 3.0}, 3),
        ({"save_steps": 100}, 11),
        ({"save_steps": 0.25}, 5),
        ({"save_steps": 100, "save_total_limit": 2}, 3),
        ({"save_steps": 100, "save_total_limit": 1}, 2),
        ({"save_steps": 100, "save_total_limit": 1, "load_best_model_at_end": True}, 3),
        ({"save_steps": 900, "save_total_limit": 5}, 2),
    ],
    ids=str,
)
def test_the_checkpoints_that_lie_there_at_once(values: dict[str, Any], kept: int) -> None:
    assert room._kept(values, 1000) == kept


@pytest.mark.parametrize("what", ["full", "freeze", "lora"])
def test_only_an_adapter_is_merged(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    (tmp_path / "models/chatglm3-6b").mkdir(parents=True)
    with (tmp_path / "models/chatglm3-6b/model.safetensors").open("wb") as weights:
        weights.truncate(1 << 40)  # sparse
    found = Findings()
    values = GOOD | {"finetuning_type": what, "save_strategy": "no"}
    monkeypatch.setattr(
        room.shutil, "disk_usage", lambda p: type("Usage", (), {"free": 100 * 10**9})
    )
    room.look_disk(values, CHATGLM3, 10, "configs/x/y.yaml", found)
    assert [one.level for one in found] == (["warning"] if what == "lora" else ["ok"])


def test_checkpoints_that_are_there_already_need_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    (tmp_path / "models/chatglm3-6b").mkdir(parents=True)
    monkeypatch.setattr(
        room.shutil, "disk_usage", lambda p: type("Usage", (), {"free": 400 * 10**6})
    )
    values = GOOD | {"save_total_limit": 1}

    def level() -> str:
        found = Findings()
        room.look_disk(values, CHATGLM3, 9999, "configs/x/y.yaml", found)
        return next(iter(found)).level

    assert level() == "problem"
    (tmp_path / "saves/a/checkpoint-10").mkdir(parents=True)
    with (tmp_path / "saves/a/checkpoint-10/optimizer.pt").open("wb") as state:
        state.truncate(200 * 10**6)
    assert level() == "ok"


def looked(values: dict[str, Any], gpu: Card | None) -> Finding:
    found = Findings()
    card.look(gpu, values, found)
    (one,) = found
    return one


@pytest.mark.parametrize(
    ("values", "bf16", "level", "cure"),
    [
        ({"bf16": True}, True, "ok", ""),
        ({}, False, "ok", ""),
        ({"fp16": True}, True, "warning", "bf16=true fp16=false"),
        ({"pure_bf16": True}, False, "problem", "pure_bf16=false fp16=true"),
    ],
    ids=str,
)
def test_number_formats(values: dict[str, Any], bf16: bool, level: str, cure: str) -> None:
    one = looked(values, Card("A card", 24 * GIB, 24 * GIB, bf16))
    assert (one.level, one.cure) == (level, cure)


@pytest.mark.parametrize(
    ("values", "level"),
    [({}, "ok"), ({"use_cpu": True, "bf16": True}, "ok"), ({"pure_bf16": True}, "problem")],
    ids=str,
)
def test_no_card(values: dict[str, Any], level: str) -> None:
    assert looked(values, None).level == level


def fits(values: dict[str, Any], gpu: Card) -> Finding:
    found = Findings()
    card.fits(gpu, GOOD | values, CHATGLM3, "configs/x.yaml", found)
    (one,) = found
    return one


def test_memory_is_the_budgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    rtx = Card("RTX 4090", 24 * GIB, 24 * GIB, bf16=True)
    lora = {"bf16": True, "cutoff_len": 1024, "per_device_train_batch_size": 1}
    assert fits(lora, rtx).level == "ok"
    assert fits(lora | {"per_device_train_batch_size": 64}, rtx).level == "problem"
    full = {"bf16": True, "finetuning_type": "full", "cutoff_len": 1024}
    one = fits(full, rtx)
    assert one.level == "problem" and one.cure.endswith("budget.py configs/x.yaml --gpu-memory 24")
    # Divided among eight cards by DeepSpeed, half of it in RAM.
    zero = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}
    (tmp_path / "zero3.json").write_text(json.dumps(zero), encoding="utf-8")
    eight = Card("RTX 4090", 24 * GIB, 24 * GIB, bf16=True, count=8)
    divided = full | {"deepspeed": "zero3.json", "per_device_train_batch_size": 1}
    assert fits(divided, eight).level == "ok"


@pytest.mark.parametrize(
    ("folder", "record", "seen"),
    [
        ("chatglm3-6b", {"origin": "models/chatglm3-6b-original"}, False),
        ("chatglm3-6b", {"origin": "zai-org/chatglm3-6b-base"}, True),
        ("chatglm3-6b", {"origin": "ZhipuAI/chatglm3_6b_Base"}, True),
        ("chatglm3-6b", {"origin": "models/database"}, False),
        ("chatglm3-6b-base", {}, True),
    ],
)
def test_names_of_the_base(
    folder: str, record: dict[str, str], seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    assert bool(base.base_of(tmp_path / "models" / folder, record)) == seen
