"""Candidates for near-duplicates: MinHash over single characters and pairs of neighbours.

Source of the method: Broder, On the resemblance and containment of documents, 1997. With
25 bands of 3 rows two texts with Jaccard 0.5 meet with probability 0.96, with 0.3 one in two.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from medqa.data.core import FREQUENT_LEAST, beginnings, letters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Hashes = NDArray[np.uint32]
    Packed = NDArray[np.uint64]

ROWS = 3

_SEED = 26
_BATCH = 4  # bands whose pairs are held before equal ones go


def candidates(
    texts: "NDArray[Any]",
    *,
    bands: int = 25,
    window: int = 16,
    rare: float = 1.0,
    groups: "Indices | None" = None,
    marked: "NDArray[np.bool_] | None" = None,
) -> "Packed":
    """Returns pairs of texts that may be alike, as left * len(texts) + right, left < right.

    Args:
        texts: (n,) str, all different and in ascending order.
        bands: More find more.
        window: In a bucket each text is paired with so many that follow it in the alphabet, in
            every second band in that of the texts read backwards, so that neither a changed head
            nor a changed tail hides a copy.
        rare: Compare only what occurs less than `rare` times the number of texts, so that phrases
            that many texts share do not make them alike.
        groups: (n,) texts of one group are not paired.
        marked: (n,) bool; only pairs of a marked and another text.
    """
    import numpy as np

    shingles, starts, which = _shingles(texts.tolist(), rare)
    found = np.empty(0, np.uint64)
    if not len(which):
        return found
    rank = np.empty(len(texts), dtype=np.int64)
    rank[_backward(texts)] = np.arange(len(texts))
    orders = np.arange(len(which)), np.argsort(rank[which])
    salts = np.random.default_rng(_SEED).integers(0, 1 << 32, (bands, ROWS, 2), dtype=np.uint32)

    def of_band(band: int) -> "Packed":
        key = _key(shingles, starts, salts[band])
        order = orders[band % 2]
        if marked is not None:
            order = order[np.isin(key[order], key[marked[which]])]
        one, other = _neighbours(key, order, window)
        one, other = which[one], which[other]
        if groups is not None:
            apart = groups[one] != groups[other]
            one, other = one[apart], other[apart]
        if marked is not None:
            apart = marked[one] != marked[other]
            one, other = one[apart], other[apart]
        return packed(one, other, len(texts))

    # NumPy lets go of the interpreter, so two threads use two cores; more would take more memory.
    with ThreadPoolExecutor(2) as pool:
        for first in range(0, bands, _BATCH):
            fresh = pool.map(of_band, range(first, min(first + _BATCH, bands)))
            found = distinct(np.concatenate((found, *fresh)))
    return found


def packed(one: "Indices", other: "Indices", count: int) -> "Packed":
    """Returns pairs of numbers below `count` as lower * count + higher, sorted, each once."""
    import numpy as np

    return distinct((np.minimum(one, other) * count + np.maximum(one, other)).view(np.uint64))


def distinct(values: "Packed") -> "Packed":
    """Sorts `values` in place and returns each once; `np.unique` takes fifty times as long."""
    import numpy as np

    values.sort()
    fresh = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=fresh[1:])
    return values[fresh]


def mixed(values: "Hashes") -> "Hashes":
    """Returns a hash of each value (the last step of MurmurHash3)."""
    import numpy as np

    values = values ^ (values >> np.uint32(16))
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    values ^= values >> np.uint32(16)
    return values


def _shingles(texts: Sequence[str], rare: float) -> "tuple[Hashes, Indices, Indices]":
    """Returns hashes of single characters and of neighbours, text by text.

    Returns:
        The hashes; where each text's begin; which text it is, since one may have none that is
        rare.
    """
    import numpy as np

    codes = letters(texts)
    starts = beginnings(codes) if len(codes) else np.empty(0, np.int64)
    both = np.empty((len(codes), 2), dtype=np.uint32)
    both[:, 0] = mixed(codes)
    both[:, 1] = mixed(codes * np.uint32(0x01000193) + np.append(codes[1:], np.uint32(0)))
    kept = np.ones(both.shape, dtype=bool)
    ends = np.append(starts[1:], len(codes))[: len(starts)] - 1
    kept[ends] = False
    kept[np.maximum(ends - 1, 0), 1] = False
    if rare < 1:
        for column in range(2):
            short = both[:, column] >> np.uint32(8)
            counts = np.bincount(short[kept[:, column]], minlength=1 << 24)
            kept[:, column] &= (counts <= max(FREQUENT_LEAST, rare * len(texts)))[short]
    counts = np.add.reduceat(kept.sum(axis=1), starts) if len(starts) else starts
    which = np.flatnonzero(counts)
    counts = counts[which]
    return both[kept], np.cumsum(counts) - counts, which


def _key(shingles: "Hashes", starts: "Indices", salts: "NDArray[np.uint32]") -> "Packed":
    """Returns a key for each text, equal where the least hashes of all rows are."""
    import numpy as np

    key = np.zeros(len(starts), dtype=np.uint64)
    for salt, factor in salts:
        hashes = shingles ^ salt
        hashes *= factor | np.uint32(1)
        key *= np.uint64(0x9E3779B97F4A7C15)
        key += np.minimum.reduceat(hashes, starts)
    return key


def _neighbours(key: "Packed", order: "Indices", window: int) -> "tuple[Indices, Indices]":
    """Returns pairs of equal keys: each with the `window` next ones in `order`."""
    import numpy as np

    # The place in `order` takes the low bits of the key, so that one sort does for both.
    low = np.uint64(len(order).bit_length())
    placed = (key[order] >> low << low) | np.arange(len(order), dtype=np.uint64)
    placed.sort()
    bucket = placed >> low
    alone = np.ones(len(bucket) + 1, dtype=bool)
    np.not_equal(bucket[1:], bucket[:-1], out=alone[1:-1])
    shared = ~(alone[1:] & alone[:-1])
    bucket = bucket[shared]
    place = order[(placed[shared] & ((np.uint64(1) << low) - np.uint64(1))).view(np.int64)]
    one, other = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for step in range(1, min(window, len(bucket) - 1) + 1):
        here = np.flatnonzero(bucket[step:] == bucket[:-step])
        one.append(place[here])
        other.append(place[here + step])
    return np.concatenate(one), np.concatenate(other)


def _backward(texts: "NDArray[Any]") -> "Indices":
    """Returns the order of the texts in the alphabet of the texts read backwards."""
    import polars as pl

    order = pl.Series([text[::-1] for text in texts], dtype=pl.String).arg_sort()
    return order.to_numpy().astype("int64")
