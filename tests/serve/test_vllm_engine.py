"""What can be said of the vLLM engine without vLLM, which wants a card."""

import importlib.util
import json
from pathlib import Path

import pytest

from medqa.errors import CheckpointError, MissingInputError
from medqa.serve.vllm_engine import VllmEngine, _rank, write_apart
from tests.adapters import ADAPTER, BASE


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_cure_is_named(in_pair: Path) -> None:
    engine = VllmEngine(BASE, ADAPTER)
    with pytest.raises(MissingInputError, match=r"pip install 'medqa\[vllm\]'"):
        engine.start()
    engine.close()


def test_the_halves_of_an_adapter_are_the_whole(in_pair: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    write_apart(in_pair / ADAPTER, tmp_path)
    whole = load_file(in_pair / ADAPTER / "adapter_model.safetensors")
    apart = load_file(tmp_path / "adapter_model.safetensors")
    fused = [name for name in whole if "gate_up_proj.lora_A" in name]
    assert fused
    for first in fused:
        second = first.replace("lora_A", "lora_B")
        added = whole[second] @ whole[first]
        halves = [
            apart[second.replace("gate_up", part)] @ apart[first.replace("gate_up", part)]
            for part in ("gate", "up")
        ]
        torch.testing.assert_close(torch.cat(halves), added)
    others = {name for name in whole if "gate_up_proj" not in name}
    assert {name for name in apart if "gate_" not in name and "up_proj" not in name} == others
    assert all(torch.equal(apart[name], whole[name]) for name in others)
    targets = json.loads((tmp_path / "adapter_config.json").read_text("utf-8"))["target_modules"]
    assert targets == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"use_dora": True}, "no plain LoRA"), ({"r": 1024}, "has rank 1024")],
)
def test_what_vllm_cannot_apply_is_refused(
    in_pair: Path, tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    config = json.loads((in_pair / ADAPTER / "adapter_config.json").read_text("utf-8"))
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(config | {"r": 12}), "utf-8")
    assert _rank(str(tmp_path)) == 16
    file.write_text(json.dumps(config | changes), "utf-8")
    with pytest.raises(CheckpointError, match=problem):
        _rank(str(tmp_path))
