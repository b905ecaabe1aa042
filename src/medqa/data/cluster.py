"""Clusters of questions that must not be divided between training and test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medqa.data import near

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Keys = NDArray[np.uint64]
    Edges = tuple[Indices, Indices]

# Steps of ever weaker likeness in which a component that is too large is built anew.
STEPS = 50
SIZES = (1, 2, 3, 5, 10, 20, 50, 100, 1000, 10_000)


@dataclass(frozen=True)
class Clustering:
    """What `assign` found.

    Attributes:
        labels: (records,) uint64, the cluster of each record: the smallest key of ``firm[0]`` in
            it, hence independent of the order of the records.
        facts: Counts for the report: ``near_pairs``, ``clusters``, ``largest``,
            ``largest_before`` (had nothing been cut), ``records_taken_apart`` (records in
            components that were too large), ``near_pairs_cut``, ``soft_ties_cut``, and ``sizes``,
            a list of ``{"from", "to", "clusters", "records"}`` (records in a cluster).
    """

    labels: "Keys"
    facts: dict[str, Any]


def assign(
    canonical: "pl.Series", firm: "Sequence[Keys]", soft: "Sequence[Keys]", *, largest: int
) -> Clustering:
    """Puts records into clusters.

    Records with the same firm key, or whose questions differ in filler words only, always share
    a cluster. Near questions (`near.pairs`) and records with the same soft key do as long as the
    cluster holds at most `largest` records. A component that is larger is built anew, the surest
    pairs first: each question with the one most like it, then all pairs by falling strength, then
    soft ties, and whatever would exceed `largest` is left undone. Templates asked of diseases
    with similar names make such components.

    Args:
        canonical: (records,) questions as `normal.canonical` gives them.
        firm: Arrays (records,) of group keys, 0 for none; the first is the question's own key.
        soft: The same, for ties that may be cut.
        largest: Records that a cluster may hold, unless what always shares one makes more.
    """
    import numpy as np

    questions = near.Questions(canonical)
    found = near.pairs(questions)
    block_of = _joined(len(questions.wholes.texts), *_ties(firm, questions.of))
    block = block_of[questions.of]
    weights = np.bincount(block)
    pairs = near.Pairs(block_of[found.left], block_of[found.right], found.strength)
    one, other = _ties(soft, block)
    whole = _joined(
        len(weights), np.concatenate((pairs.left, one)), np.concatenate((pairs.right, other))
    )
    before = np.bincount(whole, weights).astype(np.int64)
    large = before > largest
    label = whole
    if large.any():
        inside = large[whole]
        grown = _grown(
            weights,
            _chosen(pairs, inside[pairs.left]),
            _most_like(found, block_of, inside),
            (one[inside[one]], other[inside[one]]),
            largest,
        )
        _, label = np.unique(np.where(inside, len(whole) + grown, whole), return_inverse=True)
    sizes = np.bincount(label, weights).astype(np.int64)
    facts = {
        "near_pairs": len(found.left),
        "clusters": len(sizes),
        "largest": int(sizes.max(initial=0)),
        "largest_before": int(before.max(initial=0)),
        "records_taken_apart": int(before[large].sum()),
        "near_pairs_cut": int((label[pairs.left] != label[pairs.right]).sum()),
        "soft_ties_cut": int((label[one] != label[other]).sum()),
        "sizes": _histogram(sizes),
    }
    names = np.full(len(sizes), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(names, label[block], firm[0])
    return Clustering(names[label[block]], facts)


def _grown(
    weights: "Indices", pairs: near.Pairs, best: near.Pairs, soft: "Edges", largest: int
) -> "Indices":
    """Returns a label for each block, grown from single blocks by ever weaker pairs."""
    import numpy as np

    label = np.arange(len(weights))
    for stage in (best, pairs):
        label = _climbed(label, weights, stage, largest)
    ties = near.Pairs(*soft, np.zeros(len(soft[0])))
    return _climbed(label, weights, ties, largest)


def _climbed(label: "Indices", weights: "Indices", pairs: near.Pairs, largest: int) -> "Indices":
    """Joins labels by pairs of falling strength; what would become too large stays as it was."""
    import numpy as np

    step = np.ceil((1 - pairs.strength) * STEPS).astype(np.int64)
    for level in np.flatnonzero(np.bincount(step)).tolist():
        now = step == level
        joined = _joined(len(label), label[pairs.left[now]], label[pairs.right[now]])
        too_large = np.bincount(joined[label], weights, minlength=len(label)) > largest
        # A label that may join takes the least number of its company, another keeps its own.
        own = np.arange(len(label))
        least = np.full(len(label), len(label))
        np.minimum.at(least, joined, own)
        label = np.where(too_large[joined], own, least[joined])[label]
    return label


def _most_like(found: near.Pairs, block_of: "Indices", inside: "NDArray[np.bool_]") -> near.Pairs:
    """Returns for each text the pair with the one most like it, as pairs of blocks."""
    import numpy as np

    at = np.flatnonzero(inside[block_of[found.left]])
    one = np.concatenate((found.left[at], found.right[at]))
    other = np.concatenate((found.right[at], found.left[at]))
    order = np.lexsort((other, -np.tile(found.strength[at], 2), one))
    order = order[np.flatnonzero(np.diff(one[order], prepend=-1))]
    return near.Pairs(
        block_of[one[order]], block_of[other[order]], np.tile(found.strength[at], 2)[order]
    )


def _chosen(pairs: near.Pairs, which: "NDArray[np.bool_]") -> near.Pairs:
    return near.Pairs(pairs.left[which], pairs.right[which], pairs.strength[which])


def _ties(keys: "Sequence[Keys]", place: "Indices") -> "Edges":
    """Returns pairs of `place` that join, along a chain, all records of equal keys."""
    import numpy as np

    one, other = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for key in keys:
        order = np.lexsort((place, key))
        same = (np.diff(key[order]) == 0) & (key[order[1:]] != 0)
        one.append(place[order[:-1]][same])
        other.append(place[order[1:]][same])
    left, right = np.concatenate(one), np.concatenate(other)
    return left[left != right], right[left != right]


def _joined(count: int, left: "Indices", right: "Indices") -> "Indices":
    """Returns for each of `count` things the number of its component, when left[i]~right[i]."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = coo_matrix((np.ones(len(left), dtype=bool), (left, right)), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)


def _histogram(sizes: "Indices") -> list[dict[str, int]]:
    """Returns how many clusters, and records in them, there are of each range of sizes."""
    import numpy as np

    place = np.searchsorted(SIZES, sizes, "right") - 1
    rows = []
    for at in np.unique(place).tolist():
        here = sizes[place == at]
        rows.append(
            {
                "from": int(here.min()),
                "to": int(here.max()),
                "clusters": len(here),
                "records": int(here.sum()),
            }
        )
    return rows
