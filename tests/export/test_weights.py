"""Every weight of the result, computed again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medqa.errors import CheckFailedError
from medqa.export import weights

DOWN = "model.layers.1.mlp.down_proj.weight"
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"]

KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "PiSSA": {"init_lora_weights": "pissa"},
    "ranks and scales of their own": {
        "rank_pattern": {"down_proj": 2},
        "alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 32},
        "layers_to_transform": [0, 1],
    },
    "a layer saved whole": {"modules_to_save": ["lm_head"]},
    "the embedding": {"target_modules": ["embed_tokens", "down_proj"]},
}


def pair(project: Path, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Path, ...]:
    """Base, a random adapter, and what PEFT makes of both."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import GlmForCausalLM

    base, adapter, merged = (project / "models" / n for n in ("base", "adapter", "merged"))
    GlmForCausalLM.from_pretrained(project / "models/tiny", dtype=dtype).save_pretrained(base)

    def load() -> GlmForCausalLM:
        return GlmForCausalLM.from_pretrained(base, dtype=dtype)

    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": NAMES, "task_type": "CAUSAL_LM"}
    model = get_peft_model(load(), LoraConfig(**settings | options))
    for name, weight in model.named_parameters():
        if weight.requires_grad and "magnitude" not in name:
            weight.data += 0.1 * torch.randn(weight.shape)
    model.save_pretrained(adapter, save_embedding_layers=False)
    PeftModel.from_pretrained(load(), adapter).merge_and_unload().save_pretrained(merged)
    return base, adapter, merged


def edit(folder: Path, name: str, index: int, value: float) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[name].view(-1)[index] = value
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_right_merge_and_one_wrong_value(project: Path, kind: str) -> None:
    base, adapter, merged = pair(project, **KINDS[kind])
    found = weights.check(base, adapter, merged)
    assert found.rounded == 0
    differs = {
        name
        for name, tensor in load_file(base / "model.safetensors").items()
        if not torch.equal(tensor, load_file(merged / "model.safetensors")[name])
    }
    assert found.changed == len(differs) > 0
    for name in (DOWN, "model.norm.weight", "lm_head.weight", "model.embed_tokens.weight"):
        value = float(load_file(merged / "model.safetensors")[name].view(-1)[5])
        edit(merged, name, 5, value + 1e-4)
        with pytest.raises(CheckFailedError, match=rf"{name} is not"):
            weights.check(base, adapter, merged)
        edit(merged, name, 5, value)
    weights.check(base, adapter, merged)


def test_it_is_the_papers_formula(project: Path) -> None:
    """W + alpha / r * B A (Hu et al., 2021), computed without PEFT."""
    base, adapter, merged = pair(project)
    before, after = (load_file(f / "model.safetensors") for f in (base, merged))
    parts = load_file(adapter / "adapter_model.safetensors")
    for name in before:
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in parts:
            product = parts[f"{stem}.lora_B.weight"] @ parts[f"{stem}.lora_A.weight"]
            expected = before[name] + 8 / 4 * product
            torch.testing.assert_close(after[name], expected, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(project: Path, dtype: torch.dtype) -> None:
    base, adapter, merged = pair(project, dtype)
    assert weights.check(base, adapter, merged).rounded == 0
    value = load_file(merged / "model.safetensors")[DOWN].view(-1)[5]
    unit = torch.finfo(dtype).eps * abs(float(value))
    edit(merged, DOWN, 5, float(torch.nextafter(value, value + 1)))  # what another device may give
    assert weights.check(base, adapter, merged).rounded == 1
    edit(merged, DOWN, 5, float(value) + 3 * unit)
    with pytest.raises(CheckFailedError, match=r"\(1 of [\d,]+ values"):
        weights.check(base, adapter, merged)


def test_a_result_in_another_type(project: Path) -> None:
    base, adapter, merged = pair(project)
    tensors = load_file(merged / "model.safetensors")
    half = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(half, merged / "model.safetensors", {"format": "pt"})
    assert weights.check(base, adapter, merged).rounded == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number(project: Path, value: float) -> None:
    base, adapter, merged = pair(project)
    edit(merged, DOWN, 0, value)
    with pytest.raises(CheckFailedError, match="is not base"):
        weights.check(base, adapter, merged)


def test_tensors_too_many_or_too_few(project: Path) -> None:
    base, adapter, merged = pair(project)
    file = merged / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"extra": torch.zeros(1)}, file, {"format": "pt"})
    with pytest.raises(CheckFailedError, match="tensor extra is missing or too many"):
        weights.check(base, adapter, merged)
    del tensors[DOWN]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckFailedError, match=rf"tensor {DOWN} is missing or too many"):
        weights.check(base, adapter, merged)


def test_an_adapter_for_layers_that_the_base_lacks(project: Path) -> None:
    """PEFT leaves them out with a warning."""
    base, adapter, merged = pair(project)
    file = adapter / "adapter_model.safetensors"
    extra = {"base_model.model.transformer.output_layer.weight": torch.zeros(1)}
    save_file(load_file(file) | extra, file, {"format": "pt"})
    with pytest.raises(CheckFailedError, match="has nothing that it could change"):
        weights.check(base, adapter, merged)


def test_shards(project: Path) -> None:
    """A tensor is found in whichever file it lies."""
    base, adapter, merged = pair(project)
    tensors = load_file(merged / "model.safetensors")
    (merged / "model.safetensors").unlink()
    files = {}
    for number, name in enumerate(sorted(tensors)):
        files.setdefault(f"model-{number % 3 + 1:05}-of-00003.safetensors", {})[name] = tensors[
            name
        ]
    for file, part in files.items():
        save_file(part, merged / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (merged / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert weights.check(base, adapter, merged).tensors == len(tensors)
