import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.data.mix import replay_count, subset
from medqa.data.split import rank as seeded

SIZES = st.dictionaries(st.text("内外儿科", max_size=3), st.integers(1, 60), min_size=1)
COUNT = st.integers(0, 200)


def table(sizes: dict[str, int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Strata, weights of one, ranks; the same records have the same ranks."""
    strata = np.repeat(np.array([*sizes], object), [*sizes.values()])
    ranks = np.array([seeded(seed, n) for n in range(len(strata))], np.uint64)
    return strata, np.ones(len(strata)), ranks


@given(SIZES, COUNT, COUNT, st.integers(0, 9), st.data())
def test_a_bigger_subset_contains_the_smaller(
    sizes: dict[str, int], one: int, two: int, seed: int, data: st.DataObject
) -> None:
    strata, weights, ranks = table(sizes, seed)
    of = {stratum: data.draw(st.sampled_from([0.5, 1.0, 2.0, 7.0])) for stratum in sizes}
    weights = np.array([of[stratum] for stratum in strata])
    small, big = (subset(strata, weights, ranks, count) for count in sorted((one, two)))
    assert (small.sum(), big.sum()) == tuple(min(n, len(strata)) for n in sorted((one, two)))
    assert not (small & ~big).any()


@given(SIZES, COUNT, st.integers(0, 9))
def test_equal_weights_take_all_strata_equally_densely(
    sizes: dict[str, int], count: int, seed: int
) -> None:
    strata, weights, ranks = table(sizes, seed)
    chosen = subset(strata, weights, ranks, count)
    taken = Counter(strata[chosen].tolist())
    # There is one density from which no stratum is a whole record away.
    least = max((taken[stratum] - 1) / size for stratum, size in sizes.items())
    most = min((taken[stratum] + 1) / size for stratum, size in sizes.items())
    assert least <= most + 1e-9
    for stratum in sizes:  # the first of each stratum by rank
        inside = ranks[strata == stratum]
        first = np.sort(inside)[: taken[stratum]]
        assert set(first) == set(inside[chosen[strata == stratum]])


@given(SIZES, COUNT, st.integers(0, 9), st.randoms(use_true_random=False), st.data())
def test_it_equals_the_same_by_hand_in_any_order(
    sizes: dict[str, int], count: int, seed: int, rng: random.Random, data: st.DataObject
) -> None:
    strata, _, ranks = table(sizes, seed)
    of = {stratum: data.draw(st.sampled_from([1.0, 2.0, 3.5])) for stratum in sizes}
    weights = np.array([of[stratum] for stratum in strata])
    members = defaultdict(list)
    for stratum, key in zip(strata.tolist(), ranks.tolist(), strict=True):
        members[stratum].append(key)
    queue = []
    for stratum, keys in members.items():
        shift = seeded(0, min(keys)) / 2**64
        for place, key in enumerate(sorted(keys)):
            queue.append(((place + shift) / (len(keys) * of[stratum]), key))
    expected = {key for _, key in sorted(queue)[:count]}
    shuffled = rng.sample(range(len(ranks)), len(ranks))
    numbers = {stratum: number for number, stratum in enumerate(sizes)}
    codes = np.array([numbers[stratum] for stratum in strata])
    for given_strata in (strata, codes):
        chosen = subset(given_strata[shuffled], weights[shuffled], ranks[shuffled], count)
        assert set(ranks[shuffled][chosen].tolist()) == expected


def test_large_strata_get_their_share_of_the_count() -> None:
    sizes = {"百科": 36_000, "图谱": 79_000, "Lite": 17_000} | {f"小{n}": 2 for n in range(500)}
    strata, weights, ranks = table(sizes, 42)
    chosen = subset(strata, weights, ranks, 10_000)
    total = len(strata)
    for stratum in ("百科", "图谱", "Lite"):
        share = 10_000 * sizes[stratum] / total
        assert chosen[strata == stratum].sum() == pytest.approx(share, abs=10)
    # Two of a stratum of two while most give nothing would be no turn-taking.
    tiny = chosen[np.char.startswith(strata.astype(str), "小")].reshape(-1, 2).sum(axis=1)
    assert set(tiny.tolist()) == {0, 1}
    assert tiny.sum() == pytest.approx(1000 * 10_000 / total, abs=25)


def test_twice_the_weight_is_twice_as_dense_until_it_is_used_up() -> None:
    strata, _, ranks = table({"a": 1000, "b": 1000}, 42)
    weights = np.where(strata == "a", 2.0, 1.0)
    for count, expected in ((300, 200), (1200, 800), (1500, 1000), (1800, 1000)):
        chosen = subset(strata, weights, ranks, count)
        assert abs(int(chosen[strata == "a"].sum()) - expected) <= 1, count
        assert chosen.sum() == count


def test_another_rank_gives_another_choice() -> None:
    one, two = (subset(*table({"a": 500, "b": 500}, seed), 100) for seed in (1, 2))
    assert (one & two).sum() < 30  # 10 by chance
    everything = subset(*table({"a": 5}, 1), 9)
    assert everything.tolist() == [True] * 5


@pytest.mark.parametrize(
    ("share", "own", "count"), [(0.25, 45, 15), (0.5, 45, 45), (0.1, 90, 10), (0.25, 0, 0)]
)
def test_replay_count_makes_up_the_share(share: float, own: int, count: int) -> None:
    assert replay_count(share, own) == count
