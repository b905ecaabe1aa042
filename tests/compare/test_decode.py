"""Rows that come and go say what each would have said alone."""

import random
from pathlib import Path
from typing import Any

import pytest

from medqa.compare.decode import Batch, decode, padded

from .conftest import PLAN

pytestmark = pytest.mark.slow

# A tenth of the vocabulary ends an answer, so that lengths differ: 1 to LONGEST, 10 on average.
STOPS = list(range(7, 512, 10))
LONGEST = 24


@pytest.fixture(scope="module")
def model(made: Path) -> Any:
    from transformers import GlmForCausalLM

    return GlmForCausalLM.from_pretrained(made / PLAN["model_name_or_path"]).eval()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Forty of 3 to 40 ids, in no order."""
    rng = random.Random(0)
    return [[rng.randrange(3, 500) for _ in range(rng.randrange(3, 41))] for _ in range(40)]


@pytest.fixture(scope="module")
def alone(model: Any, prompts: list[list[int]]) -> dict[int, list[int]]:
    """What transformers' own `generate` says to each prompt alone."""
    import torch

    found = {}
    for n, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=LONGEST,
            do_sample=False,
            eos_token_id=STOPS,
            pad_token_id=0,
        )
        found[n] = out[0, len(prompt) :].tolist()
    lengths = [len(ids) for ids in found.values()]
    assert min(lengths) <= 3
    assert max(lengths) == LONGEST
    return found


def said(model: Any, prompts: list[list[int]], size: int) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for some in decode(
        model, prompts, batch_size=size, max_new_tokens=LONGEST, stops=frozenset(STOPS)
    ):
        assert some
        assert not found.keys() & dict(some).keys()
        found |= dict(some)
    return found


@pytest.mark.parametrize("size", [1, 2, 5, 16, 64])
@pytest.mark.parametrize("order", ["longest first", "as they come"])
def test_as_generate(
    model: Any, prompts: list[list[int]], alone: dict[int, list[int]], size: int, order: str
) -> None:
    numbers = list(range(len(prompts)))
    if order == "longest first":
        numbers.sort(key=lambda n: -len(prompts[n]))
    found = said(model, [prompts[n] for n in numbers], size)
    assert {numbers[n]: ids for n, ids in found.items()} == alone


def test_seats_are_filled_again(
    model: Any,
    prompts: list[list[int]],
    alone: dict[int, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fewer steps than batches that wait for their slowest, and never more rows than allowed."""
    rows: list[int] = []
    step = Batch.step

    def counted(self: Batch, model: Any) -> None:
        rows.append(len(self.last))
        assert self.mask.shape == (rows[-1], self.cache.get_seq_length())
        assert bool(self.mask[:, -1].all()), "padding is on the left"
        step(self, model)

    monkeypatch.setattr(Batch, "step", counted)
    said(model, prompts, 8)
    assert max(rows) == 8
    assert rows[-1] < 8, "rows that have ended leave when nobody waits"
    waiting = sum(max(len(alone[n]) for n in range(k, k + 8)) for k in range(0, 40, 8))
    assert len(rows) < 0.8 * waiting


def test_nothing_to_say(model: Any) -> None:
    assert list(decode(model, [], batch_size=2, max_new_tokens=3, stops=STOPS)) == []


def test_one_token(model: Any, prompts: list[list[int]], alone: dict[int, list[int]]) -> None:
    found = decode(model, prompts, batch_size=4, max_new_tokens=1, stops=STOPS)
    assert {n: ids for some in found for n, ids in some} == {n: i[:1] for n, i in alone.items()}


def test_grad_stays_on_outside(model: Any, prompts: list[list[int]]) -> None:
    import torch

    for _ in decode(model, prompts[:4], batch_size=2, max_new_tokens=3, stops=STOPS):
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded(side: Any) -> None:
    ids, mask = padded([[5], [6, 7, 8]], side=side)
    short = ([0, 0, 5], [False, False, True])
    row, seen = short if side == "left" else (short[0][::-1], short[1][::-1])
    assert ids.tolist() == [row, [6, 7, 8]]
    assert mask.tolist() == [seen, [True] * 3]
