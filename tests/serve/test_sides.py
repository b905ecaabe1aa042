"""Base and tuned rows in one forward are what each would be alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from medqa.errors import CheckpointError, MissingInputError
from medqa.serve.sides import Sides, require_switchable
from tests.adapters import ADAPTER, BASE

pytestmark = pytest.mark.slow

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "whole": {"modules_to_save": ["norm"]},
}


def write_adapter(project: Path, folder: Path, config: Any) -> None:
    import torch
    from peft import get_peft_model
    from transformers import GlmForCausalLM

    torch.manual_seed(0)
    model = get_peft_model(GlmForCausalLM.from_pretrained(project / BASE), config)
    for name, weight in model.named_parameters():
        if weight.requires_grad and "magnitude" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder, save_embedding_layers=False)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_both_sides(
    in_pair: Path, prompts: list[list[int]], tmp_path: Path, kind: str
) -> None:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import GlmForCausalLM

    options = {"r": 4, "target_modules": LINEAR, "task_type": "CAUSAL_LM"} | KINDS[kind]
    write_adapter(in_pair, tmp_path / "adapter", LoraConfig(**options))
    base = GlmForCausalLM.from_pretrained(in_pair / BASE).eval()
    ids = torch.tensor([prompt[:3] for prompt in prompts[:4]])
    sides = Sides(BASE, str(tmp_path / "adapter"))
    with torch.inference_mode():
        plain = base(input_ids=ids).logits
        tuned = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()(input_ids=ids).logits
        assert not torch.allclose(plain, tuned, atol=0.1)
        for rows in ([False] * 4, [True] * 4, [True, False, False, True]):
            sides.select(rows)
            found = sides.model(input_ids=ids).logits
            expected = torch.where(torch.tensor(rows)[:, None, None], tuned, plain)
            # A product of fewer rows differs in its last bits.
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"init_lora_weights": "pissa"}, "begun as pissa.*merge it"),
        ({"init_lora_weights": "olora"}, "begun as olora.*merge it"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING, which changes no layers.*use a LoRA"),
    ],
)
def test_an_adapter_that_cannot_be_off_is_refused(
    in_pair: Path, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    config = json.loads((in_pair / ADAPTER / "adapter_config.json").read_text("utf-8"))
    if "peft_type" in changes:
        config = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4, "token_dim": 64}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | changes), "utf-8")
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(CheckpointError, match=problem):
        require_switchable(str(tmp_path), BASE)


def test_what_is_not_there_is_named(in_pair: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"adapter saves/no does not exist.*train\.py"):
        require_switchable("saves/no", BASE)
    with pytest.raises(MissingInputError, match="model models/no does not exist"):
        Sides("models/no", None)


def test_an_adapter_of_another_base_is_refused(in_pair: Path, tmp_path: Path) -> None:
    record = {"inputs": {"models/other": "xxh3:0"}}
    (tmp_path / "medqa_run.json").write_text(json.dumps(record), "utf-8")
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(CheckpointError, match="do not belong together"):
        require_switchable(str(tmp_path), BASE)
