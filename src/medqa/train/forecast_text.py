"""A forecast's table and its spans of time, as text."""

from collections.abc import Iterator, Mapping

from medqa.model.budget import GIB, Peak

_COLUMNS = {
    "weights": "weights",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimiser": "optimiser",
    "activations": "activations",
    "logits": "logits",
    "kv_cache": "KV cache",
    "cuda": "CUDA",
}


def table(found: Mapping[str, Peak], usable: int) -> Iterator[str]:
    """Yields the terms of every situation, in GiB, or MiB where all is small."""
    largest = max(peak.tensors for peak in found.values())
    unit, name = (GIB, "GiB") if largest >= GIB else (1 << 20, "MiB")
    yield f"{name:10}" + "".join(f"{title:>12}" for title in _COLUMNS.values()) + "       total"
    for peak in found.values():
        cells = (peak.terms.get(key) for key in _COLUMNS)
        numbers = "".join("           -" if not c else f"{c / unit:12.2f}" for c in cells)
        fit = "fits" if peak.total <= usable else "DOES NOT FIT"
        where = (
            "in RAM, not on the card"
            if peak.place == "ram"
            else f"{fit}; highest at: {peak.moment}"
        )
        yield f"{peak.situation:10}{numbers}{peak.total / unit:12.2f}  {where}"


def span(seconds: float) -> str:
    """Returns seconds in the unit that suits them."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.2g} seconds"
