"""What of a LLaMA-Factory recipe decides memory and time."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from medqa.model.budget_ledger import Method
from medqa.model.budget_shape import Shape

# Defaults of LLaMA-Factory (hparams/*_args.py) and of transformers' training arguments.
CUTOFF, BATCH, RANK, TRAINED_LAYERS = 2048, 8, 8, 2
_HALVES = {"bf16": "bfloat16", "fp16": "float16"}


def method(
    values: Mapping[str, Any],
    shape: Shape,
    adapter: Mapping[str, Any] | None = None,
    zero: int = 0,
) -> Method:
    """Returns how a recipe computes.

    LLaMA-Factory 0.9.5 asks transformers for ``torch_dtype="auto"`` (``model/loader.py``). So
    frozen weights that are stored in float16 stay so under ``bf16: true``, and autocast keeps a
    bfloat16 copy of each for the backward pass (tests/train/test_forecast.py sees it happen).

    Args:
        values: A LLaMA-Factory training YAML.
        shape: The model's.
        adapter: ``adapter_config.json`` of the adapter that training goes on with.
        zero: Stage of DeepSpeed's ZeRO, which casts the whole model to the half precision.
    """
    half = next((name for key, name in _HALVES.items() if values.get(key)), None)
    how = Method(
        weights=half if half and zero else shape.dtype,
        compute=half or shape.dtype,
        autocast=half is not None,
        bits=number(values, "quantization_bit", 0),
        double=bool(values.get("double_quantization", True)),
        pure=bool(values.get("pure_bf16") or (zero and half)),
    )
    kind = values.get("finetuning_type", "lora")
    if kind == "full":
        return replace(how, trained=-1)
    if kind == "freeze":
        layers = abs(number(values, "freeze_trainable_layers", TRAINED_LAYERS))
        return replace(how, trained=min(layers, shape.layers))
    known = adapter or {}
    if known.get("peft_type") == "PREFIX_TUNING":
        return replace(how, virtual=int(known["num_virtual_tokens"]))
    targets = known.get("target_modules") or values.get("lora_target", "all")
    names = targets.split(",") if isinstance(targets, str) else targets
    return replace(
        how,
        rank=int(known.get("r") or number(values, "lora_rank", RANK)),
        targets=frozenset(shape.sides if "all" in names else (name.strip() for name in names)),
        dora=bool(known.get("use_dora", values.get("use_dora", False))),
        dropout=float(values.get("lora_dropout") or 0) > 0,
    )


def flops_per_token(
    values: Mapping[str, Any], shape: Shape, adapter: Mapping[str, Any] | None = None
) -> float:
    """Returns the floating-point operations of training, for each token of a packed row.

    A product of matrices is two for each weight; the backward pass is as much for the gradient of
    the input, and again for that of a weight that is trained; checkpointing repeats the layers'
    forward pass. Attention is counted whole, without what a causal kernel leaves out, as PyTorch's
    FlopCounterMode does; norms, softmax and the optimiser are left out.
    """
    how = method(values, shape, adapter)
    lora = shape.lora(how.rank, how.targets)
    attention = 4 * number(values, "cutoff_len", CUTOFF) * shape.heads * shape.head_dim
    forward = 2 * (shape.linear + lora) + attention
    trained = shape.layers if how.trained == -1 else how.trained
    reached = trained or shape.layers  # layers that gradients reach
    flops = shape.layers * forward + reached * (2 * shape.linear + 4 * lora + 2.5 * attention)
    flops += trained * 2 * shape.linear + (6 if how.trained == -1 else 4) * shape.head
    if checkpoints(values):
        flops += reached * forward
    if stage(values) == "dpo" and has_reference(values):
        flops += shape.layers * (2 * shape.linear + attention) + 2 * shape.head
    return float(flops)


def checkpoints(values: Mapping[str, Any]) -> bool:
    """Says whether a recipe recomputes activations: LLaMA-Factory does unless told not to."""
    return not values.get("disable_gradient_checkpointing")


def fuses(values: Mapping[str, Any]) -> bool:
    """Says whether the logits are fused into the loss: not on a CPU, and not for preferences."""
    wanted = values.get("enable_liger_kernel") and not values.get("use_cpu")
    return bool(wanted) and stage(values) in {"pt", "sft"}


def stage(values: Mapping[str, Any]) -> str:
    """Returns ``pt``, ``sft`` or ``dpo``, among others."""
    return str(values.get("stage", "sft"))


def has_reference(values: Mapping[str, Any]) -> bool:
    """Says whether preferences are learned against a reference model."""
    return values.get("pref_loss", "sigmoid") not in {"orpo", "simpo"}


def number(values: Mapping[str, Any], key: str, default: int) -> int:
    """Returns a whole number of a recipe, or the library's default."""
    given = values.get(key)
    return default if given is None else int(given)
