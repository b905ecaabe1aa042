"""Settings that fit a card: the nearest to a recipe, and the fastest. Each is predicted itself."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from medqa.model.budget_recipe import checkpoints, flops_per_token, fuses
from medqa.model.budget_shape import Shape
from medqa.model.budget_terms import Peak

Predict = Callable[[Mapping[str, Any]], Mapping[str, Peak]]
"""A recipe to its peaks."""

SHORTEST = 256
LARGEST = 64


@dataclass(frozen=True)
class Choice:
    """Settings that fit.

    Attributes:
        changes: Keys of the recipe with the values to give them; empty where it fits as it is.
        peaks: What the changed recipe takes.
        flops: Of the changed recipe, for each token.
    """

    changes: Mapping[str, Any]
    peaks: Mapping[str, Peak]
    flops: float

    def __str__(self) -> str:
        """The overrides as a command line takes them."""
        return " ".join(
            f"{key}={str(value).lower() if isinstance(value, bool) else value}"
            for key, value in self.changes.items()
        )


def fits(found: Mapping[str, Peak], memory: int) -> bool:
    """Says whether training and its evaluations fit `memory` bytes."""
    return all(found[name].total <= memory for name in ("train", "evaluate") if name in found)


def nearest(
    values: Mapping[str, Any],
    shape: Shape,
    predict: Predict,
    memory: int,
    *,
    prefix: bool = False,
) -> Choice | None:
    """Returns the settings that fit and change the recipe least; None where there are none.

    First what changes no result (micro-batch at equal global batch, fused logits, checkpointing),
    the fewest keys and then the quickest; then shorter rows; 4-bit weights at last.

    Args:
        values: The recipe.
        shape: The model's.
        predict: Predicts a changed recipe.
        memory: Bytes.
        prefix: It is prefix tuning, which goes with neither checkpointing nor 4-bit weights.
    """
    length = int(values.get("cutoff_len", 2048))
    lengths = [length]
    while lengths[-1] // 2 >= SHORTEST:
        lengths.append(lengths[-1] // 2)
    lora = values.get("finetuning_type", "lora") == "lora" and not prefix
    quantised = (None, 4) if lora and not values.get("quantization_bit") else (None,)
    for bits, shorter in product(quantised, lengths):
        rougher = {"quantization_bit": bits} if bits else {}
        if shorter != length:
            rougher = {"cutoff_len": shorter} | rougher
        found = [
            choice
            for same in _same_result(values, _batch(values), prefix=prefix)
            if (choice := _tried(values, same | rougher, shape, predict, memory))
        ]
        if found:
            return min(
                found, key=lambda c: (len(c.changes), c.flops, -_batch({**values, **c.changes}))
            )
    return None


def fastest(
    values: Mapping[str, Any],
    shape: Shape,
    predict: Predict,
    memory: int,
    *,
    prefix: bool = False,
) -> Choice | None:
    """Returns the settings that fit and take the fewest FLOPs a token, at the recipe's row length.

    Of several with equally few, the largest micro-batch; the global batch stays as it is. The
    arguments are those of `nearest`.
    """
    found = [
        choice
        for same in _same_result(values, LARGEST, prefix=prefix)
        if (choice := _tried(values, same, shape, predict, memory))
    ]
    return min(
        found,
        key=lambda c: (c.flops, -_batch({**values, **c.changes}), len(c.changes)),
        default=None,
    )


def _same_result(
    values: Mapping[str, Any], largest: int, *, prefix: bool
) -> Iterator[dict[str, Any]]:
    """Yields changes that leave what is learned as it is: how rows are batched and computed."""
    batch, steps = _batch(values), int(values.get("gradient_accumulation_steps") or 1)
    rows = batch * steps
    sizes = [n for n in range(1, min(largest, rows) + 1) if rows % n == 0]
    evaluated = int(values.get("per_device_eval_batch_size") or 8)
    at_a_time = [n for n in (evaluated, evaluated // 2, evaluated // 4, 1) if n]
    fused: list[dict[str, Any]] = [{}]
    if not fuses(values) and fuses({**values, "enable_liger_kernel": True}):
        fused.append({"enable_liger_kernel": True})
    recomputed: list[dict[str, Any]] = [{}]
    if not prefix:
        recomputed.append({"disable_gradient_checkpointing": checkpoints(values)})
    for size, seen, liger, again in product(sizes, dict.fromkeys(at_a_time), fused, recomputed):
        changes: dict[str, Any] = {}
        if size != batch:
            changes["per_device_train_batch_size"] = size
            changes["gradient_accumulation_steps"] = rows // size
        if seen != evaluated:
            changes["per_device_eval_batch_size"] = seen
        yield changes | liger | again


def _tried(
    values: Mapping[str, Any],
    changes: Mapping[str, Any],
    shape: Shape,
    predict: Predict,
    memory: int,
) -> Choice | None:
    changed = {**values, **changes}
    found = predict(changed)
    if not fits(found, memory):
        return None
    return Choice(changes, found, flops_per_token(changed, shape))


def _batch(values: Mapping[str, Any]) -> int:
    return int(values.get("per_device_train_batch_size") or 8)
