"""Which clusters go to test, and in which order all is written: seeded, whatever order it comes in.

Every choice is made by a hash of seed and content, never by a random generator, so the same pairs
give the same split on every machine, and adding pairs moves few of the others.
"""

from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_64_intdigest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PACKED = [Struct(f"<{count}Q") for count in range(9)]


def rank(seed: int, *keys: int) -> int:
    """Returns the place of `keys` in the seeded order; the first n of it are a fair sample.

    It is the XXH3 hash (64 bits, `seed` as its seed) of the keys as little-endian 64-bit words,
    hence the same on every machine.

    Args:
        seed: Another seed gives another order; 0 to 2**64 - 1.
        keys: At most eight numbers, each 0 to 2**64 - 1.
    """
    return xxh3_64_intdigest(_PACKED[len(keys)].pack(*keys), seed)


def assign(
    clusters: "NDArray[np.uint64]",
    strata: "NDArray[Any]",
    shares: Mapping[str, float],
    seed: int,
) -> "NDArray[np.int8]":
    """Divides records into train and the parts that `shares` names, by whole cluster.

    A cluster belongs to the stratum of most of its records. Within a stratum the clusters stand
    in seeded order, each at the share of the stratum's records that come before it; a part takes
    the clusters that stand first over all strata. So every stratum gives its share, and those too
    small to give a whole cluster take turns, by a seeded shift of their own.

    A part is filled as nearly as whole clusters allow: what no longer fits is passed over for
    the next that does. Clusters with more than half of what a part may hold come last, for a test
    set of one question tests one question. A part leaves one cluster at least to each part after
    it and to train, and is empty only where there is but one.

    Args:
        clusters: (n,) name of each record's cluster.
        strata: (n,) name (str) or number of each record's stratum. Numbers must not depend on
            what else is in the data, or adding records moves more than a few of the others.
        shares: Part to its share of the records, each between 0 and 1, together less than 1. A
            part does not depend on those after it, unless clusters are that few.
        seed: Another seed gives another split.

    Returns:
        (n,) number of each record's part: 0 for train, then 1 for the first of `shares`, and so
        on.
    """
    import numpy as np

    names, places, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    order = _order(names, sizes, *_stratum_of_each(places, strata), seed)
    parts = np.zeros(len(names), np.int8)
    for number, share in enumerate(shares.values(), start=1):
        left = order[parts[order] == 0]
        needed = len(shares) - number + 1  # by the parts after it and train
        most = max(len(left) - needed, min(len(left) - 1, 1))
        parts[left[_filled(sizes[left], share * len(clusters), most)]] = number
    return parts[places]


def _stratum_of_each(
    places: "NDArray[np.intp]", strata: "NDArray[Any]"
) -> tuple["NDArray[np.intp]", "NDArray[Any]"]:
    """Returns each cluster's stratum, as a place in the second array: the strata's names.

    Args:
        places: (n,) each record's cluster, from 0; none is left out.
        strata: (n,) each record's stratum.
    """
    import numpy as np

    names, codes = coded(strata)
    pairs, counts = np.unique(places * max(len(names), 1) + codes, return_counts=True)
    cluster, stratum = np.divmod(pairs, max(len(names), 1))
    # The first of each cluster has the most records; of equals, the first name.
    best = np.lexsort((stratum, -counts, cluster))
    first = np.flatnonzero(np.diff(cluster[best], prepend=-1))
    return stratum[best[first]], names


def coded(strata: "NDArray[Any]") -> tuple["NDArray[Any]", "NDArray[np.intp]"]:
    """Returns the names (str or int) in order, and the place of each record's among them."""
    import numpy as np

    if strata.dtype.kind in "iu":
        return np.unique(strata, return_inverse=True)
    import polars as pl  # twenty times as fast with strings as np.unique

    texts = pl.Series(strata, dtype=pl.String)
    names = texts.unique().sort()
    codes = texts.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.intp)
    return names.to_numpy(), codes


def _order(
    clusters: "NDArray[np.uint64]",
    sizes: "NDArray[np.intp]",
    stratum: "NDArray[np.intp]",
    names: "NDArray[Any]",
    seed: int,
) -> "NDArray[np.intp]":
    """Returns the places of the clusters, in the order in which parts take them."""
    import numpy as np

    ranks = np.array([rank(seed, name) for name in clusters.tolist()], np.uint64)
    order = np.lexsort((ranks, stratum))
    size, of = sizes[order], stratum[order]
    total = np.bincount(of, size, len(names))
    before = np.cumsum(size) - size - (np.cumsum(total) - total)[of]
    shift = np.array([_shift(seed, name) for name in names.tolist()])
    position = (before + shift[of] * size) / total[of]
    return order[np.lexsort((ranks[order], position))]


def _shift(seed: int, name: str | int) -> float:
    """Returns a number from 0 to below 1 that a stratum keeps whatever else is in the data."""
    text = str(name).encode()
    return rank(seed, xxh3_64_intdigest(text)) / 2**64


def _filled(sizes: "NDArray[np.intp]", wanted: float, most: int) -> "NDArray[np.intp]":
    """Returns the places of the clusters that make up `wanted` records as nearly as they can.

    Args:
        sizes: Of the clusters, in the order in which they are to be taken.
        wanted: Records.
        most: Clusters that may be taken.
    """
    import numpy as np

    big = 2 * sizes > max(wanted, 2)
    waiting = np.concatenate((np.flatnonzero(~big), np.flatnonzero(big)))
    chosen = np.zeros(len(sizes), bool)
    left = wanted
    while len(waiting := waiting[sizes[waiting] <= left]):
        sums = np.cumsum(sizes[waiting])
        fit = int(np.searchsorted(sums, left, side="right"))
        chosen[waiting[:fit]] = True
        left -= int(sums[fit - 1])
        waiting = waiting[fit:]
    if left > 0 and not chosen.all():
        rest = np.flatnonzero(~chosen)
        smallest = rest[np.argmin(sizes[rest])]
        if sizes[smallest] < 2 * left or not chosen.any():
            chosen[smallest] = True
    taken = np.flatnonzero(chosen)
    return taken[np.argsort(sizes[taken], kind="stable")[:most]]
