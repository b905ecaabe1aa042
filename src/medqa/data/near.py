"""Near-duplicate questions, with high recall: candidates by MinHash, then an exact check.

Questions are compared as wholes and by their cores (`core.cores`), so that what one template
made does not look alike and copies of one question still do. What counts is the longest common
subsequence, to which a character more or less, a filler or a greeting is one small difference
wherever it stands.

In medicine a near-duplicate is not a duplicate (高血压, 低血压): what is near here may be tied in
the split or kept out of training, never taken for the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from medqa.data.core import bare, beginnings, cores, letters
from medqa.data.minhash import candidates, mixed, packed

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Edges = tuple[Indices, Indices]

# Near: the cores are alike, or the wholes are and each holds nearly all of the other's core.
CORE_ALIKE = 0.8
WHOLE_ALIKE = 0.85
CORE_HELD = 0.65
# Or the wholes nearly equal; then half of the cores will do, as when the cores are short.
WHOLE_EQUAL = 0.87
CORE_HALF = 0.5
# Wholes are candidates by what fewer than this share of the questions hold.
RARE = 0.05
# Two cores that many texts share are clean: comparing each text too would tell nothing new.
FEW = 4
MANY = 64

_CHUNK = 1 << 20


class Kind:
    """Different strings, and what their comparison needs again and again.

    Attributes:
        texts: (n,) str.
        lengths: (n,) int64, in characters.
        bits: (n,) uint64, the set of the characters, each as one of 64 bits.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import numpy as np

        self.texts: NDArray[Any] = np.array(texts, dtype=object)
        codes = letters(texts)
        starts = beginnings(codes) if len(texts) else np.empty(0, np.int64)
        self.lengths: Indices = np.diff(starts, append=len(codes)) - 1
        bits = np.uint64(1) << (mixed(codes) >> np.uint32(26)).astype(np.uint64)
        bits[starts + self.lengths] = 0
        self.bits: NDArray[np.uint64] = np.bitwise_or.reduceat(bits, starts)

    def shared(self, one: "Indices", other: "Indices", least: "NDArray[Any]") -> "Indices":
        """Returns how many characters texts have in common, in order; 0 where below `least`."""
        import numpy as np

        ours, theirs = self.bits[one], self.bits[other]
        bound = np.minimum(
            self.lengths[one] - np.bitwise_count(ours & ~theirs),
            self.lengths[other] - np.bitwise_count(theirs & ~ours),
        )
        at = np.flatnonzero(bound >= least)
        found = np.zeros(len(one), dtype=np.int64)
        found[at] = common(self.texts[one[at]], self.texts[other[at]])
        found[found < least] = 0
        return found


class Questions:
    """The different questions of a corpus, without filler words, and their cores.

    Args:
        canonical: (records,) questions as `normal.canonical` gives them.

    Attributes:
        of: (records,) int64, place in `wholes`.
        wholes: (n,) the questions, in ascending order.
        core_of: (n,) int64, place in `cores`.
        cores: (m,) their cores, in ascending order.
    """

    def __init__(self, canonical: "pl.Series") -> None:
        import polars as pl

        different, of = _ranked(canonical)
        wholes, place = _ranked(pl.Series(bare(different), dtype=pl.String))
        self.of: Indices = place[of]
        self.wholes = Kind(wholes)
        found, self.core_of = _ranked(pl.Series(cores(wholes), dtype=pl.String))
        self.cores = Kind(found)

    @cached_property
    def by_core(self) -> "Edges":
        """Questions in the order of their cores, and where each core's begin (m + 1 places)."""
        import numpy as np

        order = np.argsort(self.core_of, kind="stable")
        return order, np.searchsorted(
            self.core_of[order], np.arange(len(self.cores.texts) + 1)
        ).astype(np.int64)

    def expanded(self, left: "Indices", right: "Indices") -> "tuple[Indices, Indices, Indices]":
        """Returns all pairs of questions of pairs of cores.

        Returns:
            Place in `left` and `right`, one question, other question.
        """
        import numpy as np

        order, begins = self.by_core
        sizes = np.diff(begins)
        times = sizes[left] * sizes[right]
        pair = np.repeat(np.arange(len(left)), times)
        nth = np.arange(len(pair)) - np.repeat(np.cumsum(times) - times, times)
        first, second = np.divmod(nth, sizes[right[pair]])
        return pair, order[begins[left[pair]] + first], order[begins[right[pair]] + second]

    def alike(self, one: "Indices", other: "Indices") -> "NDArray[np.float64]":
        """Returns the likeness of wholes, 0 to 1: twice what they share by their lengths' sum."""
        import numpy as np

        shared = common(self.wholes.texts[one], self.wholes.texts[other])
        total = self.wholes.lengths[one] + self.wholes.lengths[other]
        return np.asarray(2 * shared / np.maximum(total, 1))

    def held(self, one: "Indices", other: "Indices") -> "NDArray[np.float64]":
        """Returns the share of the characters of both cores that the other whole has, in order."""
        import numpy as np

        ours, theirs = self.core_of[one], self.core_of[other]
        shared = common(self.cores.texts[ours], self.wholes.texts[other])
        shared += common(self.cores.texts[theirs], self.wholes.texts[one])
        total = self.cores.lengths[ours] + self.cores.lengths[theirs]
        return np.asarray(shared / np.maximum(total, 1))


@dataclass(frozen=True)
class Pairs:
    """Pairs of questions that are near, each once.

    Attributes:
        left: (pairs,) int64, place in the list of questions.
        right: (pairs,) int64.
        strength: (pairs,) float64, 0 to 1: the mean of `Questions.alike` and `Questions.held`.
    """

    left: "Indices"
    right: "Indices"
    strength: "NDArray[np.float64]"


def pairs(questions: Questions) -> Pairs:
    """Returns pairs of questions that are near.

    Questions of equal cores are near; of each such group only neighbours in the alphabet are
    paired. Of two groups whose cores are alike the two wholes most alike stand for all.
    """
    import numpy as np

    order, _ = questions.by_core
    same = np.flatnonzero(np.diff(questions.core_of[order]) == 0)
    edges = [
        (order[same], order[same + 1]),
        *_chunked(questions, candidates(questions.cores.texts), _cores_alike),
        *_chunked(questions, whole_candidates(questions), _wholes_alike),
    ]
    count = max(1, len(questions.wholes.texts))
    one, other = (np.concatenate(side) for side in zip(*edges, strict=True))
    one, other = np.divmod(packed(one, other, count).view(np.int64), count)
    return Pairs(one, other, (questions.alike(one, other) + questions.held(one, other)) / 2)


def whole_candidates(
    questions: Questions, marked: "NDArray[np.bool_] | None" = None
) -> "NDArray[np.uint64]":
    """Returns packed pairs of questions whose wholes may be alike, see `minhash.candidates`.

    Without `marked`, questions of equal cores are not among them: those are near anyway.
    """
    groups = questions.core_of if marked is None else None
    return candidates(
        questions.wholes.texts, bands=20, window=4, rare=RARE, groups=groups, marked=marked
    )


def common(left: "NDArray[Any]", right: "NDArray[Any]") -> "Indices":
    """Returns the lengths of the longest common subsequences of `left[i]` and `right[i]`."""
    import numpy as np
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cpdist

    found = np.empty(len(left), dtype=np.int64)
    for start in range(0, len(left), _CHUNK):
        part = slice(start, start + _CHUNK)
        found[part] = cpdist(
            left[part], right[part], scorer=LCSseq.similarity, dtype=np.int32, workers=-1
        )
    return found


def _ranked(texts: "pl.Series") -> "tuple[list[str], Indices]":
    """Returns the different texts in ascending order, and the place there of each text."""
    import numpy as np

    order = texts.arg_sort()
    ascending = texts.gather(order)
    fresh = (ascending != ascending.shift(1)).fill_null(True)
    place = np.empty(len(texts), dtype=np.int64)
    place[order.to_numpy()] = fresh.cum_sum().to_numpy().astype(np.int64) - 1
    return ascending.filter(fresh).to_list(), place


def _chunked(
    questions: Questions,
    found: "NDArray[np.uint64]",
    check: "Callable[[Questions, Indices], Edges]",
) -> "Iterator[Edges]":
    import numpy as np

    for start in range(0, len(found), _CHUNK):
        yield check(questions, found[start : start + _CHUNK].view(np.int64))


def _cores_alike(questions: Questions, found: "Indices") -> "Edges":
    """Returns pairs of questions whose cores are alike, of packed pairs of cores."""
    import numpy as np

    kind = questions.cores
    left, right = np.divmod(found, len(kind.texts))
    least = CORE_ALIKE * (kind.lengths[left] + kind.lengths[right]) / 2
    near = np.flatnonzero(kind.shared(left, right, least))
    left, right = left[near], right[near]
    order, begins = questions.by_core
    one, other = order[begins[left]], order[begins[right]]
    sizes = np.diff(begins)
    smaller, larger = np.minimum(sizes[left], sizes[right]), np.maximum(sizes[left], sizes[right])
    few = np.flatnonzero((smaller <= FEW) & (larger <= MANY))
    pair, first, second = questions.expanded(left[few], right[few])
    best = np.lexsort((-questions.alike(first, second), pair))
    best = best[np.flatnonzero(np.diff(pair[best], prepend=-1))]
    one[few], other[few] = first[best], second[best]
    return one, other


def _wholes_alike(questions: Questions, found: "Indices") -> "Edges":
    """Returns pairs whose wholes are alike and hold each other's cores, of packed pairs."""
    import numpy as np

    wholes = questions.wholes
    one, other = np.divmod(found, len(wholes.texts))
    total = wholes.lengths[one] + wholes.lengths[other]
    shared = wholes.shared(one, other, WHOLE_ALIKE * total / 2)
    at = np.flatnonzero(shared)
    held = questions.held(one[at], other[at])
    equal = 2 * shared[at] >= WHOLE_EQUAL * total[at]
    at = at[(held >= CORE_HELD) | (equal & (held >= CORE_HALF))]
    return one[at], other[at]
