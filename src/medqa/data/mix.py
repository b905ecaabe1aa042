"""A part of the records that stands for the whole, and how much general data joins it."""

from typing import TYPE_CHECKING, Any

from medqa.data.split import coded
from medqa.data.split import rank as seeded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def subset(
    strata: "NDArray[Any]",
    weights: "NDArray[np.float64]",
    rank: "NDArray[np.uint64]",
    count: int,
) -> "NDArray[np.bool_]":
    """Chooses `count` records so that every stratum gives its share.

    Within a stratum the records stand in the order of `rank`, evenly from 0 to 1 with a shift of
    its own, divided by its weight; those that stand first over all strata are taken. So all
    strata of one weight are taken equally densely to within one record each, those of twice the
    weight twice as densely until they are used up, and what a smaller `count` takes a bigger one
    takes too. Strata too small to give a whole record take turns.

    Args:
        strata: (n,) each record's stratum, numbers or strings; which is which does not matter.
        weights: (n,) above 0, the same for all records of a stratum.
        rank: (n,) the seeded order; another gives another choice.
        count: How many; all when there are fewer.

    Returns:
        (n,) true where the record is chosen.
    """
    import numpy as np

    chosen = np.ones(len(rank), bool)
    if count >= len(rank):
        return chosen
    codes = coded(strata)[1]
    sizes = np.bincount(codes)
    order = np.lexsort((rank, codes))
    first = np.cumsum(sizes) - sizes
    # Not the first rank itself: the smallest of many is never far from 0.
    shift = np.array([seeded(0, key) / 2**64 for key in rank[order[first]].tolist()])
    of = codes[order]
    place = np.arange(len(rank)) - first[of]
    position = (place + shift[of]) / (sizes[of] * weights[order])
    chosen[order[np.lexsort((rank[order], position))[count:]]] = False
    return chosen


def replay_count(share: float, own: int) -> int:
    """Returns how many general rows make up `share` of a training set with `own` other rows."""
    return round(share * own / (1 - share))
