"""Peak memory and FLOPs of a recipe, by arithmetic alone: no model, no GPU, no torch.

A peak is the highest of the moments at which a run can be at its highest (the forward pass, the
loss, the backward pass of the last and of the first layer, the optimiser's step), as the sum of
what is alive then. The terms and their sources:

weights      Parameters x bytes of the type they are stored in; with bitsandbytes half a byte or one
             for each weight of a linear layer, and its quantisation constants; embedding, output
             layer and norms stay as stored. What is trained of the base is cast to float32
             (llamafactory/model/adapter.py). DeepSpeed's ZeRO divides them among the cards.
adapter      Float32: rank x (in + out) of each target, DoRA's magnitudes, a prefix's numbers.
gradients    As wide as what is trained.
optimiser    AdamW's two moments; in its step one more copy (torch's foreach implementation).
activations  What each layer keeps for its backward pass (`budget_ledger`), or with checkpointing
             its input alone and one layer whole; what the passes need beside it; the inputs.
logits       Three in float32 for each token and word, 12 bytes: the softmax, its gradient and
             that of its input (transformers/loss/loss_utils.py). Fused (Liger), a block of them.
kv_cache     Keys and values of all layers, for each token of each row.
cuda         An ASSUMPTION, as no card was at hand: `CONTEXT`, and `FRAGMENTATION` of gradients,
             activations, logits and cache.

How well it does: every row of the table that PyTorch's MemTracker gave for the 6B within 2 %, and
the real peaks of the tiny recipes, as PyTorch's own CPU allocator counts them, within 15 %
(tests/model/test_budget.py, tests/train/test_forecast.py).
"""

from collections.abc import Mapping
from typing import Any

from medqa.model import budget_use
from medqa.model.budget_recipe import flops_per_token, method
from medqa.model.budget_shape import CHATGLM3_6B, Shape
from medqa.model.budget_terms import CONTEXT, FRAGMENTATION, GIB, Peak
from medqa.model.budget_training import Run

__all__ = [
    "CHATGLM3_6B",
    "CONTEXT",
    "FRAGMENTATION",
    "GIB",
    "Peak",
    "Shape",
    "flops_per_token",
    "method",
    "peaks",
]


def peaks(
    values: Mapping[str, Any],
    shape: Shape,
    *,
    adapter: Mapping[str, Any] | None = None,
    deepspeed: Mapping[str, Any] | None = None,
    cards: int = 1,
    compare: Mapping[str, Any] | None = None,
    export: Mapping[str, Any] | None = None,
) -> dict[str, Peak]:
    """Predicts the peak memory of a recipe and of what follows it, for each card.

    Args:
        values: A LLaMA-Factory training YAML.
        shape: The model's.
        adapter: ``adapter_config.json`` of the adapter that training goes on with.
        deepspeed: What the file that `values` names holds.
        cards: How many train together; only ZeRO divides memory among them.
        compare: A compare YAML.
        export: An export YAML.

    Returns:
        Situation to peak; ``evaluate`` only where the recipe has a validation split.
    """
    zero = int((deepspeed or {}).get("zero_optimization", {}).get("stage", 0))
    run = Run(values, shape, method(values, shape, adapter, zero), deepspeed or {}, cards)
    found = [run.train()]
    if values.get("eval_dataset") or values.get("val_size") or values.get("do_eval"):
        found.append(run.evaluate())
    found += [
        budget_use.compare(compare or {}, run),
        budget_use.merge(export or {}, run),
        budget_use.serve(run),
    ]
    return {peak.situation: peak for peak in found}
