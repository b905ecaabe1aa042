"""The GPU bench as far as a CPU goes: ``--tiny`` runs all of its code but the cap and the clock."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CELLS = ("Liger's loss", "lora_sft", "LLaMA-Factory, its defaults", "compare")


def module(root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, root / f"scripts/bench/{name}.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def gpu(root: Path) -> ModuleType:
    return module(root, "gpu")


@pytest.fixture(scope="module")
def gpu_cell(root: Path) -> ModuleType:
    return module(root, "gpu_cell")


@pytest.fixture(scope="module")
def tokenizer(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medqa.model.importer import import_model

    target = tmp_path_factory.mktemp("models") / "golden"
    import_model(root / "tests/fixtures/golden", target, dtype="float32", origin="golden")
    return target


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "scripts/bench/gpu.sh", *words],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_tiny_run_measures_and_goes_on(root: Path, tokenizer: Path, tmp_path: Path) -> None:
    words = ("--tiny", "--folder", str(tmp_path), "--tokenizer", str(tokenizer), "--steps", "2")
    only = ("--minutes", "12", "--only", "^(Liger|lora_sft$|LLaMA-Factory, its d|compare)")
    done = run(root, *words, *only)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    lines = {one["name"]: one for one in report["lines"]}
    assert tuple(lines) == CELLS
    assert lines["Liger's loss"]["status"] == "no GPU"
    for name in CELLS[1:]:
        assert lines[name]["status"] == "ok", lines[name]
        assert lines[name]["speed"] > 0
        assert 0.1 < lines[name]["allocated"] < 8
    assert lines["lora_sft"]["padding"] < 0.1 < lines["LLaMA-Factory, its defaults"]["padding"]
    assert lines["lora_sft"]["mfu"] is None, "a CPU has no peak here"
    assert (tmp_path / "report.md").read_text("utf-8") in done.stdout
    again = run(root, *words, *only)
    # Two runs never measure the same seconds: it was not measured again.
    assert again.stdout == done.stdout


def test_rows_have_the_lengths_of_the_list(
    gpu: ModuleType, root: Path, tokenizer: Path, tmp_path: Path
) -> None:
    from medqa.train.lengths import lengths

    gpu._write_rows(tmp_path, tokenizer)
    values = {"model_name_or_path": str(tokenizer), "dataset_dir": str(tmp_path / "data")}
    for stage, name in gpu.ROWS_OF.items():
        recipe = {"stage": stage, "template": "chatglm3", "dataset": f"{name}_train"}
        found = lengths(values | recipe | {"cutoff_len": 8192}, sample=gpu.ROWS)
        assert found.rows == gpu.ROWS
    pairs = json.loads(gpu.LENGTHS.read_text("utf-8"))["pairs"]
    rows = {"stage": "sft", "template": "chatglm3", "dataset": "rows_train", "cutoff_len": 8192}
    found = lengths(values | rows, sample=gpu.ROWS)
    # The template and the end token take 11 tokens of this tokenizer, less the two spaces' own.
    assert found.longest - max(q + a for q, a in pairs) in range(8, 12)
    assert found.mean == pytest.approx(sum(q + a for q, a in pairs) / len(pairs) + 9, rel=0.03)


def test_cells_are_named_apart_and_begin_with_the_default(gpu: ModuleType, root: Path) -> None:
    for folder, lengths in (("chatglm3-6b", (512, 1024, 2048)), ("tiny", (64, 128, 256))):
        cells = gpu.cells(root / "configs" / folder, lengths, fa2=True)
        names = [cell.name for cell in cells]
        assert len(set(names)) == len(names)
        assert tuple(names[: len(CELLS) + 1 : 1])[:3] == CELLS[:3]
        trained = {cell.recipe for cell in cells if cell.recipe}
        assert trained >= {"lora_sft", "qlora_sft", "freeze_sft", "dpo", "pretrain"}


def test_a_recipe_loses_only_what_a_cell_does_not_do(gpu: ModuleType, tmp_path: Path) -> None:
    given: Any = gpu.cli.parser("").parse_args([])
    given.folder, given.tiny, given.minutes, given.steps = tmp_path, False, 1, 15
    bench = gpu.Bench(given)
    values = bench._values(gpu.Cell("lora_sft", "lora_sft", {"cutoff_len": 512}))
    assert values["cutoff_len"] == 512
    assert values["neat_packing"] is True
    assert not gpu.LEFT_OUT & values.keys()
    theirs = bench._values(gpu.Cell("x", change=gpu.DEFAULTS))
    assert "cutoff_len" not in theirs
    assert "per_device_train_batch_size" not in theirs


def test_out_of_memory_is_a_result(gpu_cell: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(spec: dict[str, Any]) -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def absent(spec: dict[str, Any]) -> dict[str, Any]:
        raise ModuleNotFoundError("No module named 'bitsandbytes'")

    def wrong(spec: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("something else")

    for work in (full, absent, wrong):
        monkeypatch.setitem(gpu_cell.KINDS, work.__name__, work)
    found = gpu_cell.measure({"kind": "full"})
    assert found["status"] == "out of memory"
    assert found["train"]["allocated"] > 0
    assert "bitsandbytes" in gpu_cell.measure({"kind": "absent"})["status"]
    with pytest.raises(ValueError, match="something else"):
        gpu_cell.measure({"kind": "wrong"})


def measured(**change: Any) -> dict[str, Any]:
    """What a cell of a card finds: 1,000 real tokens a second."""
    memory = {"allocated": 18 << 30, "reserved": 19 << 30, "device": 20 << 30}
    return {
        "status": "ok",
        "real": 30_000,
        "computed": 30_720,
        "seconds": 10.0,
        "steps": 15,
        "trainable": 15_000_000,
        "train": memory,
        "evaluate": memory,
        "loss": [11.0, 10.5],
    } | change


@pytest.fixture
def spec(gpu: ModuleType, tmp_path: Path) -> dict[str, Any]:
    sizes = gpu.SIZES | {"dtype": "bfloat16", "attention_bias": True}
    (tmp_path / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
    values = {
        "model_name_or_path": str(tmp_path),
        "stage": "sft",
        "finetuning_type": "lora",
        "cutoff_len": 1024,
        "neat_packing": True,
        "bf16": True,
        "per_device_train_batch_size": 1,
        "disable_gradient_checkpointing": True,
    }
    return {"cap": 24 << 30, "values": values}


def test_mfu_is_by_the_stated_convention(gpu: ModuleType, spec: dict[str, Any]) -> None:
    multiplied = 6_243_584_000 - 65024 * 4096  # ChatGLM3-6B's weights, less the embedding's
    row = gpu.line(gpu.Cell("lora_sft", "lora_sft"), spec, measured(), 165e12)
    assert row.mfu == pytest.approx(3000 * 4 * multiplied / 165e12, rel=1e-6)
    assert row.whole == pytest.approx(3072 * 4 * multiplied / 165e12, rel=1e-6)
    assert row.padding == pytest.approx(0.0234, abs=1e-4)
    spec["values"]["disable_gradient_checkpointing"] = False
    again = gpu.line(gpu.Cell("lora_sft", "lora_sft"), spec, measured(), 165e12)
    assert again.mfu == row.mfu
    assert again.whole == pytest.approx(row.whole * 6 / 4)


def test_broken_promises_are_named(gpu: ModuleType, spec: dict[str, Any]) -> None:
    ours, theirs = gpu.Cell(gpu.OURS, gpu.OURS), gpu.Cell(gpu.THEIRS)
    slow = gpu.line(theirs, spec, measured(real=8_000), 165e12)
    predicted = slow.predicted * gpu.GIB
    memory = {name: round(predicted) for name in ("allocated", "reserved", "device")}
    good = gpu.line(ours, spec, measured(real=35_000, train=memory), 165e12)
    losses = {"Liger's loss": {"losses": {"float32": [11.0, 11.0], "bfloat16": [11.0, 11.05]}}}
    assert gpu.broken([good, slow], losses) == []
    off = {name: size * 2 for name, size in memory.items()}
    bad = gpu.line(ours, spec, measured(real=20_000, train=off), 165e12)
    failed = gpu.Line("dpo", "failed: it did not start")
    said = gpu.broken([bad, slow, failed], {"Liger's loss": {"losses": {"float32": [1.0, 1.1]}}})
    assert [words.split(",")[0] for words in said] == [
        "dpo to end well",
        "3.0 times their defaults",
        "an MFU of 45%",
        "the budget within 10% (lora_sft)",
        "equal losses with Liger in float32",
    ]


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA GeForce RTX 4090", 165), ("NVIDIA L40S", 362), ("NVIDIA A10G", 70), ("Other", 50)],
)
def test_a_card_is_known_by_its_longest_name(gpu: ModuleType, name: str, peak: float) -> None:
    found, said = gpu.described({"name": name, "matmul": 50e12}, 24)
    assert found == peak * 1e12
    assert ("data sheet is not known" in said) == (name == "Other")


def test_without_a_gpu_it_says_what_to_run(root: Path, tokenizer: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run(root, "--folder", str(tmp_path), "--tokenizer", str(tokenizer))
    assert done.returncode == 2
    assert "expected a CUDA device, found none; run with --tiny" in done.stderr
