"""Whether every merged weight is what base and adapter make of it.

Logits over some prompts do not see one wrong weight among billions. So each tensor of the result is
computed again from the files of base and adapter: by PEFT's own layers (LoRA, rsLoRA, DoRA, PiSSA),
one in memory at a time. A tensor that the adapter does not touch must be the base's, bit by bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa.errors import CheckFailedError
from medqa.model.fingerprint import read, weight_map
from medqa.paths import shown

if TYPE_CHECKING:
    import torch

_PREFIX = "base_model.model."
_LORA = ".lora_"
_ROWS = 4096
"""Rows of a matrix that are compared together where they are not equal: 64 MB in float32."""
_SLACK = 8
"""Rounding units of float32, of the largest change in a tensor, by which two products of the same
matrices may differ: another device or thread count sums in another order."""


@dataclass(frozen=True)
class Weights:
    """What was compared.

    Attributes:
        tensors: All of the model's.
        changed: Those that the adapter changes; the others are the base's bit by bit.
        rounded: Values that are not equal but within a rounding unit of their type.
    """

    tensors: int
    changed: int
    rounded: int

    @property
    def record(self) -> dict[str, Any]:
        """The form in which it is recorded."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for the terminal."""
        rounded = (
            f"{self.rounded:,} values off by a rounding unit" if self.rounded else "bit by bit"
        )
        return (
            f"{self.changed} of {self.tensors} tensors are base + adapter ({rounded}), the others "
            "the base's"
        )


def check(base: Path, adapter: Path, merged: Path) -> Weights:
    """Computes each tensor again and compares.

    On a GPU or with another number of threads a product is summed in another order. So a merged
    value may be off by one unit of its type's precision (``torch.finfo.eps`` times its size), and
    by 8 of float32's of the tensor's largest change; what is less cannot be told from rounding.

    Args:
        base: The native checkpoint.
        adapter: The adapter in PEFT's layout.
        merged: What was made of both, in the base's type or rounded to another.

    Raises:
        CheckFailedError: A tensor is missing, too many or not what it must be; says which.
    """
    import torch

    theirs, ours = weight_map(base), weight_map(merged)
    if odd := sorted(theirs.keys() ^ ours.keys()):
        raise CheckFailedError(f"merged model: tensor {odd[0]} is missing or too many")
    changed, rounded = set(), 0
    for name, expected in _merged(base, adapter, theirs):
        original, seen = read(theirs[name], name), read(ours[name], name)
        rounded += _off(name, original, expected.to(seen.dtype), seen)
        if not torch.equal(expected, original):
            changed.add(name)
        del theirs[name]
    for name, file in theirs.items():
        original, seen = read(file, name), read(ours[name], name)
        if not torch.equal(original.to(seen.dtype), seen):
            raise CheckFailedError(
                f"merged model: {name} is not the base's, and the adapter does not touch it; "
                "nothing was written"
            )
    return Weights(tensors=len(ours), changed=len(changed), rounded=rounded)


def _merged(
    base: Path, adapter: Path, files: Mapping[str, Path]
) -> "Iterator[tuple[str, torch.Tensor]]":
    """Yields name and merged tensor of each that belongs to a layer which the adapter changes."""
    import torch
    from peft import PeftConfig
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = PeftConfig.from_pretrained(adapter)
    with torch.device("meta"):
        network: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.from_pretrained(base)
        )
    weights = adapter / "adapter_model.safetensors"
    layers: dict[str, list[str]] = {}
    for key in _keys(weights):
        name = key.removeprefix(_PREFIX)
        if _LORA in name:
            layers.setdefault(name.partition(_LORA)[0], []).append(key)
        elif name in files:  # saved whole, as modules_to_save are
            yield name, read(weights, key).to(read(files[name], name).dtype)
        else:
            raise CheckFailedError(
                f"{shown(adapter)} holds {key}, and {shown(base)} has nothing that it could change"
            )
    for name, keys in layers.items():
        layer = network.get_submodule(name)
        parts = {part: f"{name}.{part}" for part in layer.state_dict()}
        layer.load_state_dict(
            {part: read(files[full], full).clone() for part, full in parts.items()}, assign=True
        )
        state = _by_peft(config, name, layer, {key: read(weights, key) for key in keys})
        for part, full in parts.items():
            yield full, state[part]
        layer.to("meta")


def _by_peft(
    config: Any, name: str, layer: Any, weights: "dict[str, torch.Tensor]"
) -> "dict[str, torch.Tensor]":
    """Returns the tensors of `layer` after PEFT has merged `weights` into it.

    The layer stands alone under its full name, by which the adapter's configuration knows its rank
    and scaling. The steps are those of ``PeftModel.from_pretrained`` and ``merge_and_unload``.
    """
    from peft import PeftModel
    from peft.utils import set_peft_model_state_dict
    from torch import nn

    root = at = nn.Module()
    *path, last = name.split(".")
    for step in path:
        at.add_module(step, nn.Module())
        at = getattr(at, step)
    at.add_module(last, layer)
    model: Any = PeftModel(root, config)
    set_peft_model_state_dict(model, weights)
    state: dict[str, torch.Tensor] = model.merge_and_unload().get_submodule(name).state_dict()
    return state


def _keys(file: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def _off(
    name: str, original: "torch.Tensor", expected: "torch.Tensor", seen: "torch.Tensor"
) -> int:
    """Returns how many values differ within rounding; raises if one differs by more."""
    import torch

    if expected.shape != seen.shape:
        raise CheckFailedError(
            f"merged model: {name} is {tuple(seen.shape)}, expected {tuple(expected.shape)}"
        )
    if torch.equal(expected, seen):
        return 0
    change = float((expected.float() - original.float()).abs().max())
    slack = _SLACK * torch.finfo(torch.float32).eps * change
    unit = torch.finfo(seen.dtype).eps
    wrong = differing = 0
    for start in range(0, len(seen), _ROWS):
        want, have = (t[start : start + _ROWS].float() for t in (expected, seen))
        # A comparison with NaN is false, so NaN is wrong.
        wrong += int((~((have - want).abs() <= unit * want.abs() + slack)).sum())
        differing += int((have != want).sum())
    if wrong:
        raise CheckFailedError(
            f"merged model: {name} is not base + adapter ({wrong:,} of {seen.numel():,} values are "
            "off by more than rounding); nothing was written"
        )
    return differing
