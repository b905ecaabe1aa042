"""What the GPU of this machine is, and whether a recipe's number format and memory fit it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medqa import provenance
from medqa.paths import resolve
from medqa.train.findings import Findings
from medqa.train.settings import names

_GIB = 1 << 30


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: As its driver calls it.
        memory: Bytes it has.
        free: Bytes of them that no process has taken.
        bf16: It computes in bfloat16 itself (from Ampere on), not by emulation.
        count: How many GPUs there are; the others are no smaller.
    """

    name: str
    memory: int
    free: int
    bf16: bool
    count: int = 1


def probe() -> Card | None:
    """Returns the smallest GPU that this process sees; None where there is none.

    It opens a CUDA context, so a process that lives on while another trains should not call it.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    cards = []
    for number in range(torch.cuda.device_count()):
        with torch.cuda.device(number):
            free, memory = torch.cuda.mem_get_info()
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        name, count = torch.cuda.get_device_name(number), torch.cuda.device_count()
        cards.append(Card(name, memory, free, bf16, count))
    return min(cards, key=lambda card: card.memory)


def look(card: Card | None, values: Mapping[str, Any], found: Findings) -> None:
    """Looks whether `values` can be computed on `card`; the memory is `fits`'s."""
    cpu = bool(values.get("use_cpu"))
    half = [key for key in ("bf16", "pure_bf16", "fp16") if values.get(key)]
    if card is None or cpu:
        if "fp16" in half:
            found.problem("card", "fp16 needs a GPU, and this is a CPU run", "fp16=false")
        elif half and not cpu:
            found.problem(
                "card",
                f"{half[0]} is asked for and no GPU is seen",
                "train on a machine whose `nvidia-smi` lists one, or append use_cpu=true",
            )
        else:
            found.ok("card", "a CPU run" if cpu else "no GPU is seen: it trains on the CPU")
        return
    if not card.bf16 and half and "fp16" not in half:
        found.problem(
            "card",
            f"{card.name} has no bfloat16, which {half[0]} asks for",
            f"{half[0]}=false fp16=true",
        )
    elif "fp16" in half:
        better = "bf16=true fp16=false" if card.bf16 else ""
        found.warning(
            "card",
            f"fp16 on {card.name}: its losses may overflow to 0 or NaN",
            better
            or "safe settings: learning_rate=5e-5 max_grad_norm=0.5 upcast_layernorm=true, "
            "and look at the first losses",
        )
    else:
        kind = half[0] if half else "float32"
        found.ok("card", f"{card.name}, {card.memory / _GIB:.1f} GiB, {kind}")


def fits(
    card: Card | None,
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    source: str,
    found: Findings,
) -> None:
    """Looks whether training and evaluation fit the memory of `card`, by the budget's arithmetic.

    Args:
        card: The GPU.
        values: The recipe.
        config: The model's ``config.json``.
        source: The recipe's file, for the command that shows the terms.
        found: Where the finding goes.
    """
    if card is None or values.get("use_cpu"):
        return
    from medqa.model.budget import Shape, peaks

    needed = peaks(
        values,
        Shape.of(config),
        adapter=_json(names(values.get("adapter_name_or_path"))[:1], "adapter_config.json"),
        deepspeed=_json(names(values.get("deepspeed")), ""),
        cards=card.count,
    )
    steps = ["train", *(["evaluate"] if values.get("eval_dataset") else [])]
    worst = max((needed[step] for step in steps), key=lambda peak: peak.total)
    said = f"{worst.situation} takes {worst.total / _GIB:.1f} GiB by the budget"
    shape = f"python scripts/budget.py {source} --gpu-memory {card.memory / _GIB:.0f}"
    if worst.total > card.memory:
        found.problem(
            "memory",
            f"{said}, and {card.name} has {card.memory / _GIB:.1f}",
            f"the settings that fit: {shape}",
        )
    elif worst.total > card.free:
        found.problem(
            "memory",
            f"{said}; other processes leave {card.free / _GIB:.1f} of {card.name}'s "
            f"{card.memory / _GIB:.1f}",
            "end them (nvidia-smi lists them) or wait",
        )
    else:
        found.ok("memory", f"{said}, of {card.memory / _GIB:.1f}")


def _json(place: list[str], name: str) -> dict[str, Any] | None:
    """Returns the JSON object in the file `name` at `place`; None where there is none."""
    return provenance.read(resolve(place[0]) / name) if place else None
