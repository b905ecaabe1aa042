import random

from hypothesis import given
from hypothesis import strategies as st

from medqa.data.split import Clusters, choose, rank

ROWS = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=4), max_size=60)
SIZES = st.dictionaries(st.integers(0, 2**64 - 1), st.integers(1, 9), min_size=2, max_size=80)


def clusters(rows: list[list[int]]) -> dict[int, int]:
    found = Clusters()
    for row in rows:
        found.join(row)
    return {key: found.of(key) for row in rows for key in row}


def test_paraphrases_chain_into_one_cluster_named_by_its_smallest_key() -> None:
    assert clusters([[5, 9], [7], [9, 3], [8, 7]]) == {5: 3, 9: 3, 3: 3, 7: 7, 8: 7}


@given(ROWS, st.randoms(use_true_random=False))
def test_clusters_do_not_depend_on_the_order(rows: list[list[int]], rng: random.Random) -> None:
    expected = clusters(rows)
    shuffled = [rng.sample(row, len(row)) for row in rng.sample(rows, len(rows))]
    assert clusters(shuffled) == expected
    assert all(len({expected[key] for key in row}) == 1 for row in rows)


@given(SIZES, st.floats(0.01, 0.99), st.integers(0, 5))
def test_share_is_met_as_nearly_as_clusters_allow(
    sizes: dict[int, int], share: float, seed: int
) -> None:
    chosen = choose(sizes, share, seed)
    assert chosen == choose(dict(reversed(sizes.items())), share, seed)
    assert chosen and chosen < set(sizes)
    taken, wanted = sum(sizes[c] for c in chosen), share * sum(sizes.values())
    rest = [size for cluster, size in sizes.items() if cluster not in chosen]
    if taken < wanted and len(rest) > 1:  # adding even the smallest would be no nearer
        assert min(rest) + taken - wanted >= wanted - taken - 1e-6
    if taken > wanted and len(chosen) > 1:
        assert taken - wanted <= max(sizes[c] for c in chosen) / 2 + 1e-6


def test_ratio_of_many_single_pairs_is_exact_and_seeds_differ() -> None:
    sizes = dict.fromkeys(range(1000), 1)
    assert len(choose(sizes, 0.1, 42)) == 100
    common = choose(sizes, 0.1, 42) & choose(sizes, 0.1, 43)
    assert len(common) < 30  # 10 by chance


def test_a_cluster_too_big_for_test_is_trained_on() -> None:
    assert choose({1: 900, **dict.fromkeys(range(2, 102), 1)}, 0.1, 42) == set(range(2, 102))


def test_one_cluster_cannot_be_divided() -> None:
    assert choose({1: 10}, 0.1, 42) == set()
    assert choose({}, 0.1, 42) == set()


def test_growing_data_moves_few_clusters() -> None:
    before = choose(dict.fromkeys(range(1000), 1), 0.1, 42)
    after = choose(dict.fromkeys(range(1100), 1), 0.1, 42)
    assert len(before & after) >= 85


def test_rank_is_the_same_on_every_machine() -> None:
    # Changing it would move every split that anybody made: bump the version when you must.
    assert rank(42, 7) == 3773836647444454109
