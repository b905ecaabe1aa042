"""Rows that come, go and grow are what the model would say to each alone."""

from pathlib import Path
from typing import Any

import pytest

from medqa.serve.seats import ROOM, Seats
from tests.adapters import BASE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(pair: Path) -> Any:
    from transformers import GlmForCausalLM

    return GlmForCausalLM.from_pretrained(pair / BASE).eval()


def read(model: Any, prompts: list[list[int]]) -> tuple[Seats, Any]:
    seats, logits = Seats.read(model, prompts)
    seats.last = logits.argmax(-1)
    return seats, logits


def require_alone(model: Any, texts: list[list[int]], logits: Any) -> None:
    """Compares logits with those of a forward over each whole text, without cache or padding."""
    import torch

    for text, row in zip(texts, logits, strict=True):
        alone = model(input_ids=torch.tensor([text])).logits[0, -1]
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)


def test_rows_come_go_and_grow(model: Any, prompts: list[list[int]]) -> None:
    import torch

    with torch.inference_mode():
        seats, logits = read(model, prompts[:3])
        texts = [list(prompt) for prompt in prompts[:3]]
        require_alone(model, texts, logits)
        more, _ = read(model, prompts[3:4])
        seats, texts = (
            Seats.joined([(seats, [2, 0]), (more, [0])]),
            [texts[2], texts[0], prompts[3]],
        )
        assert seats
        for n in range(ROOM + 3):  # beyond the room that a cache is made with
            texts = [[*text, token] for text, token in zip(texts, seats.last.tolist(), strict=True)]
            logits = seats.step(model)
            seats.last = logits.argmax(-1)
            if n % 16 == 0 or n > ROOM:
                require_alone(model, texts, logits)
        # The longest leaves: the others keep no more padding than they need.
        order = sorted(range(3), key=lambda row: len(texts[row]))
        seats = Seats.joined([(seats, order[:1])])
        assert seats
        assert seats.width == len(texts[order[0]])
        assert len(seats) == 1
        require_alone(model, [[*texts[order[0]], int(seats.last[0])]], seats.step(model))


def test_nobody_left_is_no_batch(model: Any, prompts: list[list[int]]) -> None:
    import torch

    with torch.inference_mode():
        assert Seats.joined([(read(model, prompts[:1])[0], [])]) is None
