"""The measure that decides whether a merge is right."""

from pathlib import Path

import pytest
import torch

from medqa.errors import CheckFailedError
from medqa.export import battery, parity
from medqa.export.battery import CHATS, encoded


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
    assert parity.logits(logits.flip(0), logits, moved, dtype).ok is ok


def test_units_are_the_spread_of_the_logits(logits: torch.Tensor) -> None:
    one = parity.logits(logits, logits * 2, logits * 2 + 0.2, "float32")
    assert one.difference == pytest.approx(0.2 / (2 * logits.std().item()), rel=1e-4)
    assert one.effect == pytest.approx(0.5, rel=0.01)
    assert one.largest == pytest.approx(0.2, rel=1e-4)


def test_a_small_adapter_left_out_is_noticed_within_the_tolerance(logits: torch.Tensor) -> None:
    """bfloat16 allows 5 %; an adapter that moves logits by 6 % and is missing by 4 % is wrong."""
    other = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    result = parity.logits(logits - 0.06 * other, logits, logits - 0.04 * other, "bfloat16")
    assert result.difference < result.tolerance < result.effect
    assert not result.ok


def test_an_adapter_without_effect_passes(logits: torch.Tensor) -> None:
    assert parity.logits(logits, logits, logits, "float32").ok


def test_not_finite(logits: torch.Tensor) -> None:
    broken = logits.clone()
    broken[3, 4] = torch.nan
    with pytest.raises(CheckFailedError, match="not finite"):
        parity.logits(logits, logits, broken, "float32")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_right_merge_passes_and_one_applied_twice_fails(
    project: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from transformers import AutoTokenizer, GlmForCausalLM

    monkeypatch.setattr(battery, "CHATS", CHATS[::4])
    base, adapter = project / "models/tiny", project / "saves/tiny/lora/sft"
    source = base
    for merged in (project / "models/once", project / "models/twice"):
        model = GlmForCausalLM.from_pretrained(source, dtype=dtype)
        PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(merged)
        AutoTokenizer.from_pretrained(base).save_pretrained(merged)
        source = merged
    found = parity.check(base, adapter, project / "models/once", "cpu")
    assert found.answers.prompts == 4
    assert dtype is not torch.float32 or found.answers.equal == 4
    with pytest.raises(CheckFailedError, match="nothing was written"):
        parity.check(base, adapter, project / "models/twice", "cpu")


def said(*ids: int, largest: float = 5.0, second: int = 0, margin: float = 1.0) -> parity.Said:
    """An answer of `ids`; at the last of them `second` is `margin` less likely."""
    rows = torch.zeros(len(ids), 10)
    for row, token in zip(rows, ids, strict=True):
        row[token] = largest
    rows[-1, second] = largest - margin
    return parity.Said(rows, list(ids), rows)


def measured(dtype: str, spread: float = 1.0) -> parity.Logits:
    return parity.Logits(0.0, 1.0, 0.0, 1.0, spread, parity.TOLERANCE[dtype], dtype)


def test_answers_that_are_equal() -> None:
    found = parity.answers([said(1, 2), said(3)], [said(1, 2), said(3)], measured("float32"))
    assert (found.equal, found.prompts, found.moved, found.ok) == (2, 2, 0.0, True)
    assert str(found) == "2 of 2 greedy answers equal, token by token"


@pytest.mark.parametrize(
    ("dtype", "margin", "ok"),
    [
        ("float32", 1e-6, False),  # none may differ
        ("float16", 0.015, True),  # 0.03 in all, of 0.04
        ("float16", 0.025, False),
        ("bfloat16", 0.09, True),  # 0.18 of 0.2
        ("bfloat16", 0.11, False),
    ],
)
def test_an_answer_may_part_at_a_near_tie_of_its_dtype(dtype: str, margin: float, ok: bool) -> None:
    one, other = said(1, 2, second=4, margin=margin), said(1, 4, second=2, margin=margin)
    found = parity.answers([one], [other], measured(dtype))
    assert found.moved == pytest.approx(2 * margin, rel=0.1)
    assert found.ok is ok
    assert "0 of 1 greedy answers equal" in str(found)


def test_the_margin_is_in_units_of_the_spread_and_of_the_first_token_that_differs() -> None:
    one, other = said(1, 2, second=4, margin=0.3), said(1, 4, 9, 9)
    other.logits[1, 2], other.logits[1, 4] = 5.0, 5.3
    found = parity.answers([one], [other], measured("bfloat16", spread=3.0))
    assert found.moved == pytest.approx(0.2, rel=1e-3)


def test_what_is_said_is_what_generate_says(project: Path) -> None:
    from transformers import GlmForCausalLM

    model = GlmForCausalLM.from_pretrained(project / "models/tiny").eval()
    for prompt in encoded(project / "models/tiny")[::3]:
        ids = torch.tensor([prompt])
        made = model.generate(
            input_ids=ids,
            max_new_tokens=parity.ANSWER_TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        ours = parity._said(model, prompt)
        assert ours.ids == made.sequences[0, len(prompt) :].tolist()
        assert torch.allclose(ours.logits, torch.cat(made.logits), atol=1e-5)
        assert len(ours.prompt) == min(len(prompt), parity.POSITIONS)
