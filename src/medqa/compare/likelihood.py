"""How unlikely a model finds given answers, in the memory of a little of their logits."""

from collections.abc import Sequence
from typing import Any

from medqa.compare.decode import padded

LOGITS = 2**22
"""So many at a time, 16 MiB in float32: those of a whole batch can take more than the model."""


def nats(model: Any, texts: list[list[int]], counts: Sequence[int]) -> list[float]:
    """Returns the negative log-likelihood (nats, summed) of the last tokens of each text.

    Args:
        model: A GlmForCausalLM.
        texts: Token ids, side by side in one batch.
        counts: Of how many of its last tokens, for each text; never of its first.
    """
    import torch

    if not any(counts):
        return [0.0] * len(counts)
    # Causal attention never looks to the right: the padding there needs no mask.
    ids, mask = padded(texts, side="right")
    for row, count in enumerate(counts):
        mask[row, : len(texts[row]) - count] = False
    where, wanted = mask[:, 1:].to(model.device), ids[:, 1:][mask[:, 1:]].to(model.device)
    with torch.inference_mode():
        states = model.model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
        states = states[:, :-1][where]  # (tokens, hidden width)
        some = max(LOGITS // model.config.vocab_size, 1)
        losses = [
            torch.nn.functional.cross_entropy(
                model.lm_head(states[n : n + some]).float(), wanted[n : n + some], reduction="none"
            )
            for n in range(0, len(states), some)
        ]
        rows = torch.cat(losses).double().cpu().split(list(counts))  # type: ignore[no-untyped-call]
    return [row.sum().item() for row in rows]
