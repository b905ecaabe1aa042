"""Every recipe of the tiny model trains on a CPU, and what it leaves loads and knows more."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqa import config
from tests.project import Project

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
READ = {
    f.stem: yaml.safe_load(f.read_text("utf-8")) for f in (ROOT / "configs/tiny").glob("*.yaml")
}
RECIPES = sorted(name for name, values in READ.items() if values.get("do_train"))
STEPS = {"max_steps": 20, "eval_steps": 10, "save_steps": 10, "logging_steps": 5, "warmup_steps": 2}
# The learning rate rises until the model breaks: what was best stands in the middle.
BREAKS = {
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 80,
    "max_steps": 80,
    "eval_steps": 5,
    "save_steps": 5,
    "save_total_limit": 20,
    "plot_loss": False,
}
# DPO that goes on with SFT's adapter, as the head of its recipe says.
ON_SFT = {"model_name_or_path": "models/tiny", "adapter_name_or_path": "saves/tiny/lora/sft"}


Losses = dict[str, dict[str, Any]]


def needs(name: str) -> None:
    if READ[name].get("quantization_method") == "bnb" and not importlib.util.find_spec(
        "bitsandbytes"
    ):
        pytest.skip("needs bitsandbytes: pip install '.[quant]'")


def run(name: str, folder: str, overrides: dict[str, Any]) -> str:
    words = (STEPS | overrides | {"output_dir": folder}).items()
    return ",".join([f"configs/tiny/{name}.yaml", *(f"{k}={json.dumps(v)}" for k, v in words)])


@pytest.fixture(scope="module")
def trained(demo_project: Project, demo: str) -> Losses:
    """Output folder to the loss before and after, or the error, of what can run here."""
    for name in ("sample_preference", "sample_corpus"):
        demo_project.script("convert", f"configs/data/{name}.yaml", "--overwrite")
    demo_project.script("begin_prefix", "configs/tiny/prefix_sft.yaml", "--overwrite")
    runs = [
        run(name, f"saves/few/{name}", {})
        for name in RECIPES
        if not READ[name].get("quantization_bit") or importlib.util.find_spec("bitsandbytes")
    ]
    runs += [run("lora_sft", "saves/few/breaks", BREAKS), run("dpo", "saves/few/on_sft", ON_SFT)]
    out = demo_project.root / "few.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.few_steps", str(out), *runs],
        cwd=demo_project.root,
        env=os.environ | {"MEDQA_ROOT": str(demo_project.root), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(out.read_text("utf-8")))


def state(project: Project, folder: str) -> dict[str, Any]:
    return project.json(f"saves/few/{folder}/trainer_state.json")


def weights(folder: Path) -> bytes:
    (file,) = folder.glob("*.safetensors")
    return file.read_bytes()


@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_and_what_it_leaves_knows_more(
    name: str, demo_project: Project, trained: Losses
) -> None:
    needs(name)
    loss = trained[f"saves/few/{name}"]
    assert "error" not in loss, loss["error"]
    assert math.isfinite(loss["after"])
    assert loss["after"] < loss["before"]
    history = state(demo_project, name)["log_history"]
    assert all(math.isfinite(entry["loss"]) for entry in history if "loss" in entry)
    watched = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert len(watched) == STEPS["max_steps"] / STEPS["eval_steps"]
    assert watched[-1] <= watched[0]
    assert list((demo_project.root / f"saves/few/{name}/runs").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("name", RECIPES)
def test_what_it_ends_with_is_the_best_checkpoint(
    name: str, demo_project: Project, trained: Losses
) -> None:
    needs(name)
    best = demo_project.root / state(demo_project, name)["best_model_checkpoint"]
    assert weights(demo_project.root / f"saves/few/{name}") == weights(best)


def test_a_run_that_gets_worse_stops_and_keeps_its_best(
    demo_project: Project, trained: Losses
) -> None:
    ended = state(demo_project, "breaks")
    folder = demo_project.root / "saves/few/breaks"
    patience = READ["lora_sft"]["early_stopping_steps"]
    assert ended["global_step"] == ended["best_global_step"] + patience * BREAKS["eval_steps"]
    assert ended["global_step"] < BREAKS["max_steps"]
    kept = weights(folder)
    assert kept == weights(folder / f"checkpoint-{ended['best_global_step']}")
    assert kept != weights(folder / f"checkpoint-{ended['global_step']}")
    loss = trained["saves/few/breaks"]
    assert loss["after"] < loss["before"]


def test_dpo_begins_at_its_reference_and_goes_on_with_an_adapter_too(
    demo_project: Project, trained: Losses
) -> None:
    """On the exported model the first rewards are near 0; with SFT's adapter they are not."""

    def first(folder: str) -> dict[str, float]:
        return state(demo_project, folder)["log_history"][0]

    assert abs(first("dpo")["rewards/chosen"]) < 1 < abs(first("on_sft")["rewards/chosen"])
    loss = trained["saves/few/on_sft"]
    assert loss["after"] < loss["before"]


def test_the_text_of_pretraining_ends_in_the_end_token(demo_project: Project) -> None:
    """LLaMA-Factory appends the letters ``</s>`` (data/processor/pretrain.py)."""
    from transformers import AutoTokenizer

    for name in ("pretrain", "lora_sft"):
        values = config.read_yaml(ROOT / f"configs/tiny/{name}.yaml")
        tokenizer = AutoTokenizer.from_pretrained(
            demo_project.root / "models/tiny", split_special_tokens=values["split_special_tokens"]
        )
        ids = tokenizer("感冒。</s>", add_special_tokens=False)["input_ids"]
        assert (ids[-1] == tokenizer.eos_token_id) is (values["stage"] == "pt")
