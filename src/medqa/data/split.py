"""Which pairs go to test, and in which order all are written: seeded, whatever order they come in.

Every choice is made by a hash of seed and content (BLAKE2b), never by a random generator, so the
same pairs give the same split on every machine, and adding pairs moves few of the others.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b


class Clusters:
    """Question keys that must stay on one side of the split, joined by union-find.

    Questions belong together when they are equal after normalisation or paraphrases in one raw
    row, and so on along any chain of these. A cluster is named by its smallest key, hence by what
    is in it and not by the order in which it grew.
    """

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def join(self, keys: Iterable[int]) -> None:
        """Puts the question keys of one raw row into one cluster."""
        first: int | None = None
        for key in keys:
            root = self.of(key)
            if first is None:
                first = root
            elif root != first:
                low, high = min(first, root), max(first, root)
                self._parent[high] = first = low

    def of(self, key: int) -> int:
        """Returns the name of the cluster of `key`."""
        parent = self._parent
        root = parent.setdefault(key, key)
        while parent[root] != root:
            parent[root] = root = parent[parent[root]]
        return root


def choose(sizes: Mapping[int, int], share: float, seed: int) -> set[int]:
    """Returns the clusters that go to test.

    Clusters are taken in the order of their rank as long as they fit, so that the number of pairs
    comes as near to `share` as whole clusters allow. With two clusters or more, neither side is
    left empty.

    Args:
        sizes: Cluster to its number of pairs.
        share: Share of the pairs that test should hold, between 0 and 1.
        seed: Another seed gives another split.
    """
    wanted = share * sum(sizes.values())
    ranked = sorted(sizes, key=lambda cluster: rank(seed, cluster))
    chosen: set[int] = set()
    taken = 0
    for cluster in ranked:
        if taken + sizes[cluster] <= wanted:
            chosen.add(cluster)
            taken += sizes[cluster]
    rest = [cluster for cluster in ranked if cluster not in chosen]
    if len(rest) > 1:
        smallest = min(rest, key=sizes.__getitem__)
        nearer = taken + sizes[smallest] - wanted < wanted - taken
        if nearer or not chosen:
            chosen.add(smallest)
    return chosen


def rank(seed: int, key: int) -> int:
    """Returns the place of `key` in the seeded order; the first n of it are a fair sample."""
    digest = blake2b(key.to_bytes(16, "big"), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big")
