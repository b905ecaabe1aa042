"""The measure that decides whether a merge is right."""

from pathlib import Path

import pytest
import torch

from medqa.errors import CheckFailedError
from medqa.export import parity


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(40, 300, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("dtype", "noise", "ok"),
    [
        ("float32", 1e-6, True),
        ("float32", 1e-3, False),
        ("float16", 2e-3, True),
        ("float16", 5e-2, False),
        ("bfloat16", 2e-2, True),
        ("bfloat16", 1e-1, False),
    ],
)
def test_tolerance_is_that_of_the_dtype(
    logits: torch.Tensor, dtype: str, noise: float, ok: bool
) -> None:
    moved = logits + noise * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    assert parity.compare(logits.flip(0), logits, moved, dtype).ok is ok


def test_units_are_the_spread_of_the_logits(logits: torch.Tensor) -> None:
    one = parity.compare(logits, logits * 2, logits * 2 + 0.2, "float32")
    assert one.difference == pytest.approx(0.2 / (2 * logits.std().item()), rel=1e-4)
    assert one.effect == pytest.approx(0.5, rel=0.01)
    assert one.largest == pytest.approx(0.2, rel=1e-4)


def test_a_small_adapter_left_out_is_noticed_within_the_tolerance(logits: torch.Tensor) -> None:
    """bfloat16 allows 5 %; an adapter that moves logits by 6 % and is missing by 4 % is wrong."""
    other = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    result = parity.compare(logits - 0.06 * other, logits, logits - 0.04 * other, "bfloat16")
    assert result.difference < result.tolerance < result.effect
    assert not result.ok


def test_an_adapter_without_effect_passes(logits: torch.Tensor) -> None:
    assert parity.compare(logits, logits, logits, "float32").ok


def test_not_finite(logits: torch.Tensor) -> None:
    broken = logits.clone()
    broken[3, 4] = torch.nan
    with pytest.raises(CheckFailedError, match="not finite"):
        parity.compare(logits, logits, broken, "float32")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_right_merge_passes_and_one_applied_twice_fails(
    project: Path, dtype: torch.dtype
) -> None:
    from peft import PeftModel
    from transformers import AutoTokenizer, GlmForCausalLM

    base, adapter = project / "models/tiny", project / "saves/tiny/lora/sft"
    source = base
    for merged in (project / "models/once", project / "models/twice"):
        model = GlmForCausalLM.from_pretrained(source, dtype=dtype)
        PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(merged)
        AutoTokenizer.from_pretrained(base).save_pretrained(merged)
        source = merged
    parity.check(base, adapter, project / "models/once", "cpu")
    with pytest.raises(CheckFailedError, match="nothing was written"):
        parity.check(base, adapter, project / "models/twice", "cpu")
