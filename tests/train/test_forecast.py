import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqa.errors import CheckpointError, ConfigError, MissingInputError
from medqa.model.budget import GIB, Shape, method, peaks
from medqa.train import forecast as forecasts
from medqa.train.forecast import Card, forecast
from tests.project import Project

ROOT = Path(__file__).parents[2]
BIG = "configs/chatglm3-6b/lora_sft.yaml"
CARD = Card(24)
RECIPES = sorted(
    p.stem for p in (ROOT / "configs/tiny").glob("*.yaml") if "\nstage:" in p.read_text("utf-8")
)
NEEDS = {"qlora_sft": "bitsandbytes"}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without model and data."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(text: str) -> dict[str, list[str]]:
    """Situation to its line of the table."""
    lines = [line.split() for line in text.splitlines() if line]
    return {words[0]: words for words in lines if words[0] in {"train", "evaluate", "compare"}}


def test_without_model_and_data_it_says_what_it_assumes(empty: Path):
    text = forecast(BIG, [], CARD)
    assert "ChatGLM3-6B's published shape is taken, in bfloat16" in text
    assert "22.0 GiB" in text
    assert "CUDA is an assumption" in text
    assert "The data was not counted" in text
    assert "scripts/convert.py" in text
    assert "45% of 165 TFLOPS" in text
    assert set(rows(text)) == {"train", "evaluate", "compare"}


def test_a_base_that_is_not_stored_as_it_is_computed_is_told(empty: Path):
    assert "--dtype" not in forecast(BIG, [], CARD)
    assert "--dtype" in forecast(BIG, ["bf16=false", "fp16=true"], CARD)


def test_overrides_change_the_prediction(empty: Path):
    text = forecast(BIG, ["per_device_train_batch_size=64"], CARD)
    assert "DOES NOT FIT" in " ".join(rows(text)["train"])
    assert "Nearest that does:" in text


def test_the_proposal_fits_when_it_is_taken(empty: Path):
    text = forecast(BIG, ["per_device_train_batch_size=64"], CARD)
    line = next(line for line in text.splitlines() if "Nearest that does:" in line)
    proposal = line.partition("does: ")[2].partition(" (")[0].split()
    again = forecast(BIG, ["per_device_train_batch_size=64", *proposal], CARD)
    assert "fits;" in rows(again)["train"]
    assert "DOES NOT FIT" not in " ".join(rows(again)["train"])


def test_comparison_that_does_not_fit_gets_a_batch_size_that_does(
    empty: Path, monkeypatch: pytest.MonkeyPatch
):
    (empty / "configs").unlink()
    folder = empty / "configs/chatglm3-6b"
    folder.mkdir(parents=True)
    recipe = (ROOT / BIG).read_text(encoding="utf-8")
    (folder / "lora_sft.yaml").write_text(recipe, encoding="utf-8")
    (folder / "compare.yaml").write_text("batch_size: 256\ncutoff_len: 1024\n", encoding="utf-8")
    text = forecast(BIG, [], CARD)
    assert "DOES NOT FIT" in " ".join(rows(text)["compare"])
    assert "compare.yaml fits with batch_size=" in text


def test_time_of_an_epoch_of_the_own_data(empty: Path, monkeypatch: pytest.MonkeyPatch):
    counted = forecasts.Lengths(
        rows=1000,
        sampled=500,
        tokens=290_000,
        computed=1_000_000,
        mean=290.0,
        p50=280,
        p90=600,
        p99=1000,
        longest=1024,
        cut=0.0,
        padding=0.5,
        packs=300,
    )
    monkeypatch.setattr(forecasts, "lengths", lambda values: counted)
    text = forecast(BIG, ["num_train_epochs=2"], Card(24, tflops=100, mfu=0.5))
    million = text.partition("tokens a second, ")[2].partition(" for a million")[0]
    assert f"{million} an epoch" in text  # a million are computed
    assert "from 500 of them" in text
    twice = forecast(BIG, ["num_train_epochs=2"], Card(24, tflops=100, mfu=0.25))
    minutes = float(twice.partition("are computed: ")[2].split()[0])
    assert minutes == pytest.approx(2 * float(million.split()[0]), rel=0.01)


@pytest.mark.parametrize(
    ("recipe", "overrides", "card", "kind", "said"),
    [
        (BIG, ["learning_rat=1"], CARD, ConfigError, "did you mean 'learning_rate'"),
        (BIG, ["cutoff_len=long"], CARD, ConfigError, "cutoff_len"),
        (BIG, [], Card(0), ConfigError, "--gpu-memory: expected more than 0"),
        (BIG, [], Card(24, mfu=45), ConfigError, "--mfu: expected a share"),
        (BIG, [], Card(24, count=0), ConfigError, "--cards"),
        (BIG, ["model_name_or_path=models/other"], CARD, MissingInputError, "make model"),
        ("configs/tiny/lora_sft.yaml", [], CARD, MissingInputError, "make demo"),
        (BIG, ["deepspeed=configs/deepspeed/none.json"], CARD, MissingInputError, "deepspeed"),
        ("configs/none.yaml", [], CARD, MissingInputError, "does not exist"),
    ],
)
def test_wrong_input(
    empty: Path, recipe: str, overrides: list[str], card: Card, kind: type[Exception], said: str
):
    with pytest.raises(kind) as caught:
        forecast(recipe, overrides, card)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prefix_is_counted_before_it_is_begun(empty: Path):
    text = forecast("configs/chatglm3-6b/prefix_sft.yaml", [], CARD)
    assert "taken for 128 virtual tokens" in text
    assert "disable_gradient_checkpointing=false" not in text  # it goes with no prefix


def test_zero_needs_its_file_and_the_number_of_cards(empty: Path):
    alone = forecast("configs/chatglm3-6b/full_sft.yaml", [], Card(80))
    eight = forecast("configs/chatglm3-6b/full_sft.yaml", [], Card(80, count=8))
    assert "DOES NOT FIT" in " ".join(rows(alone)["train"])
    assert "fits;" in rows(eight)["train"]
    assert "8 cards" in eight


def test_a_config_that_is_no_glm(empty: Path):
    folder = empty / "models/other"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="num_attention_heads"):
        forecast(BIG, ["model_name_or_path=models/other"], CARD)
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is not JSON"):
        forecast(BIG, ["model_name_or_path=models/other"], CARD)


def test_the_script_prints_and_imports_nothing_heavy(empty: Path):
    script = str(ROOT / "scripts/budget.py")
    command = [sys.executable, "-X", "importtime", script, str(ROOT / BIG), "--gpu-memory", "24"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert "train" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "transformers", "peft", "llamafactory", "polars"} & imported
    helped = [sys.executable, "-X", "importtime", script, "--help"]
    done = subprocess.run(helped, capture_output=True, text=True, check=True)
    assert "--gpu-memory" in done.stdout
    assert "pydantic" not in done.stderr


@pytest.fixture(scope="session")
def trained_on(demo_project: Project, demo: str) -> Project:
    """The demo's project, with the data of every recipe and an untrained prefix."""
    for name in ("sample_preference", "sample_corpus"):
        demo_project.script("convert", f"configs/data/{name}.yaml")
    demo_project.script("begin_prefix", "configs/tiny/prefix_sft.yaml", "--overwrite")
    return demo_project


def measured(project: Project, folder: Path, recipe: str, **changes: Any) -> tuple[Any, Any]:
    """Trains three steps as our worker does; returns its values and what the allocator counted."""
    values = yaml.safe_load((ROOT / f"configs/tiny/{recipe}.yaml").read_text(encoding="utf-8"))
    for key in ("load_best_model_at_end", "early_stopping_steps", "metric_for_best_model"):
        values.pop(key, None)
    values |= {"output_dir": str(folder / "out"), "max_steps": 3, "save_strategy": "no"}
    values |= {"report_to": "none", "plot_loss": False, "use_cpu": True} | changes
    if "eval_steps" in values:
        values["eval_steps"] = 1
    file = folder / "values.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.allocator", str(file)],
        cwd=project.root,
        env=os.environ
        | {"MEDQA_ROOT": str(project.root), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return values, json.loads(done.stdout.splitlines()[-1])


def predicted(project: Project, values: dict[str, Any], seen: dict[str, Any]) -> dict[str, int]:
    """Returns the prediction for the batches that were really seen: unpacked rows are short."""
    model = project.json(f"{values['model_name_or_path']}/config.json")
    adapter = values.get("adapter_name_or_path")
    known = project.json(f"{adapter}/adapter_config.json") if adapter else None
    found = {}
    for situation, (size, length) in seen["shapes"].items():
        size //= 2 if values["stage"] == "dpo" else 1
        batch = {
            "cutoff_len": length,
            "per_device_train_batch_size": size,
            "per_device_eval_batch_size": size,
        }
        peak = peaks(values | batch, Shape.of(model), adapter=known)[situation]
        found[situation] = peak.tensors
    return found


def test_every_tiny_recipe_is_seen():
    assert {"lora_sft", "full_sft", "freeze_sft", "dpo", "pretrain", "prefix_sft"} <= set(RECIPES)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"loraplus_sft"}))  # LoRA's memory
def test_a_real_training_peaks_where_predicted(trained_on: Project, tmp_path: Path, recipe: str):
    if needed := NEEDS.get(recipe):
        pytest.importorskip(needed)
    values, seen = measured(trained_on, tmp_path, recipe)
    wanted = {"train", "evaluate"} if values.get("eval_dataset") else {"train"}
    assert set(seen["peaks"]) >= wanted
    for situation, size in predicted(trained_on, values, seen).items():
        assert size == pytest.approx(seen["peaks"][situation], rel=0.15), situation


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"disable_gradient_checkpointing": False, "use_dora": True}],
    ids=["dora, checkpointing"],
)
def test_variants_peak_where_predicted(
    trained_on: Project, tmp_path: Path, changes: dict[str, Any]
):
    values, seen = measured(trained_on, tmp_path, "lora_sft", **changes)
    for situation, size in predicted(trained_on, values, seen).items():
        assert size == pytest.approx(seen["peaks"][situation], rel=0.15), situation


@pytest.mark.slow
def test_weights_are_loaded_as_the_budget_assumes(trained_on: Project, tmp_path: Path):
    import torch
    from safetensors.torch import load_file, save_file

    source, half = trained_on.root / "models/tiny", trained_on.root / "models/tiny-float16"
    half.mkdir(exist_ok=True)
    for file in source.iterdir():
        (half / file.name).write_bytes(file.read_bytes())
    numbers = load_file(source / "model.safetensors")
    narrow = {name: tensor.to(torch.float16) for name, tensor in numbers.items()}
    save_file(narrow, half / "model.safetensors", metadata={"format": "pt"})
    config = trained_on.json("models/tiny/config.json") | {"dtype": "float16"}
    (half / "config.json").write_text(json.dumps(config), encoding="utf-8")
    changes = {"model_name_or_path": "models/tiny-float16", "bf16": True}
    values, seen = measured(trained_on, tmp_path, "lora_sft", **changes)
    assert seen["weights"] == [method(values, Shape.of(config)).weights]
    for situation, size in predicted(trained_on, values, seen).items():
        assert size == pytest.approx(seen["peaks"][situation], rel=0.15), situation


def test_what_is_counted_on_of_a_24_gb_card():
    assert pytest.approx(22 * GIB, rel=1e-9) == CARD.usable
