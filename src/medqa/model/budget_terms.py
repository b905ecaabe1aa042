"""A peak as the sum of its terms."""

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 1 << 30

CONTEXT = 640 << 20
"""Bytes that a process takes on a card before its first tensor: driver, kernels, cuBLAS.

An assumption: no card was at hand.
"""

FRAGMENTATION = 0.10
"""Of what comes and goes, what PyTorch's allocator holds and cannot use. An assumption, too."""

_PASSING = ("gradients", "activations", "logits", "kv_cache")


@dataclass(frozen=True)
class Peak:
    """The memory of one situation at its highest.

    Attributes:
        situation: ``train``, ``evaluate`` (on the validation split, during training), ``compare``,
            ``merge`` or ``serve``.
        terms: Bytes by name, see `medqa.model.budget`.
        moment: When it is that high.
        place: ``card`` or ``ram``.
    """

    situation: str
    terms: dict[str, int]
    moment: str = ""
    place: str = "card"

    @property
    def total(self) -> int:
        """All terms, in bytes."""
        return sum(self.terms.values())

    @property
    def tensors(self) -> int:
        """All but the CUDA overhead, in bytes: what PyTorch calls allocated."""
        return self.total - self.terms.get("cuda", 0)


def highest(
    situation: str,
    always: Mapping[str, int],
    moments: Mapping[str, Mapping[str, int]],
    place: str = "card",
) -> Peak:
    """Returns the highest of several moments.

    Args:
        situation: The peak's.
        always: Terms that are there in all of them.
        moments: What each adds to them.
        place: The peak's.
    """
    found = []
    for moment, more in moments.items():
        terms = {name: always.get(name, 0) + more.get(name, 0) for name in {**always, **more}}
        if place == "card":
            passing = sum(terms.get(name, 0) for name in _PASSING)
            terms["cuda"] = CONTEXT + round(FRAGMENTATION * passing)
        found.append(Peak(situation, terms, moment, place))
    return max(found, key=lambda peak: peak.total)
