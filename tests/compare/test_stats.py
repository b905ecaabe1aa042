"""Intervals and p-values: by hand, against scipy and brute force, and simulated many times."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, astuple
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medqa.compare.resampling import interval
from medqa.compare.stats import Difference, PassFail, paired, paired_perplexity, passfail, share
from medqa.errors import CheckFailedError

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator], tuple[Floats, ...]]
ROWS = 200


def fractions(
    rng: np.random.Generator, rows: int, shape: float, zeros: float, ties: float = 0.3
) -> tuple[Floats, Floats]:
    """Scores such as BLEU-4: skewed, zero for many rows, of questions that are hard or easy."""
    easy = rng.random(rows)
    base = np.where(rng.random(rows) < 0.6, 0, rng.beta(0.7, 6, rows)) * easy
    tuned = np.where(rng.random(rows) < zeros, 0, rng.beta(shape, 6, rows)) * easy
    return base, np.where(rng.random(rows) < ties, base, tuned)


# ---- by hand


def test_means_wins_and_the_sign_of_the_difference() -> None:
    found = paired([0.1, 0.2, 0.3, 0.9], [0.4, 0.5, 0.3, 0.8])
    assert (found.rows, found.wins, found.ties, found.losses) == (4, 2, 1, 1)
    assert (found.base, found.tuned) == pytest.approx((0.375, 0.5))
    assert found.difference == pytest.approx(0.125)
    assert found.low < 0.125 < found.high
    # Swaps of 0.3, 0.3 and -0.1: |sum| is at least 0.5 in 4 of 8.
    assert found.p_value == 0.5
    lower = paired([0.1, 0.2, 0.3, 0.9], [0.4, 0.5, 0.3, 0.8], higher_is_better=False)
    assert (lower.wins, lower.ties, lower.losses) == (1, 1, 2)
    assert (lower.difference, lower.low, lower.p_value) == (found.difference, found.low, 0.5)


def test_no_row_one_row_and_rows_that_do_not_differ() -> None:
    assert paired([], []) == Difference(0, 0, 0, 0, 0, 0, 1.0, 0, 0, 0)
    assert paired_perplexity([], [], []) == paired([], [])
    assert passfail([], []) == PassFail(0, 0, 0, 0, 0, 0, 0, 1.0)
    assert astuple(paired([0.25], [0.5])) == (1, 0.25, 0.5, 0.25, 0.25, 0.25, 1.0, 1, 0, 0)
    one = paired_perplexity([2.0], [1.0], [1])
    assert one.difference == one.low == one.high == pytest.approx(np.e - np.e**2)
    assert (one.p_value, one.wins) == (1.0, 1)
    for same in (
        paired([0.3, 0.4, 0.4], [0.3, 0.4, 0.4]),
        paired_perplexity([30.0, 4.0, 9.1], [30.0, 4.0, 9.1], [10, 3, 4]),
    ):
        assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1.0)
        assert (same.wins, same.ties, same.losses) == (0, 3, 0)
        assert not same.distinguishable
    for shares in (
        paired([1, 1, 0], [1, 1, 0]),
        passfail([True, True, False], [True, True, False]),
    ):
        assert shares.p_value == 1.0
        assert (shares.low, shares.high) == pytest.approx((-0.5615, 0.5615), abs=1e-3)
    for seed in range(20):  # not even by the rounding of a sum
        nats = np.random.default_rng(seed).gamma(2, 50, 40 + seed)
        same = paired_perplexity(nats, nats, np.arange(1, 41 + seed))
        assert (same.low, same.high) == (0, 0)
    # The same step in every row, but for rounding: nothing to doubt but how few the rows are.
    step = paired([0.1, 0.2, 0.3], [0.2, 0.3, 0.4])
    assert (step.low, step.high, step.p_value) == pytest.approx((0.1, 0.1, 0.25))


def test_two_rows_give_students_interval() -> None:
    # 12.706 times the standard error of 0.2 and 0.7, which is 0.25.
    found = paired([0.1, 0.2], [0.3, 0.9])
    assert (found.low, found.high) == pytest.approx((0.45 - 3.17655, 0.45 + 3.17655), abs=1e-4)
    assert found.p_value == 0.5


def test_a_perplexity_is_that_of_all_tokens_together() -> None:
    base, tuned, tokens = [20.0, 3.0, 50.0], [10.0, 4.0, 50.0], [10, 1, 30]
    found = paired_perplexity(base, tuned, tokens)
    assert found.base == pytest.approx(np.exp(73 / 41))
    assert found.tuned == pytest.approx(np.exp(64 / 41))
    assert (found.rows, found.wins, found.ties, found.losses) == (3, 1, 1, 1)
    # A row without tokens is no row.
    assert paired_perplexity([*base, 0.0], [*tuned, 0.0], [*tokens, 0]) == found
    assert paired_perplexity([0.0], [0.0], [0]) == paired([], [])


def test_passed_and_failed() -> None:
    base = [True] * 10 + [False] * 10
    tuned = [True] * 9 + [False] + [True] * 7 + [False] * 3
    found = passfail(base, tuned)
    assert (found.rows, found.base, found.tuned, found.gained, found.lost) == (20, 10, 16, 7, 1)
    # Two tails of 8 coins: (1 + 8) of 256 each.
    assert found.p_value == pytest.approx(18 / 256)
    assert 0 < found.low < 0.3 < found.high < 1
    assert passfail([False] * 5, [True] * 5).high == 1.0
    assert passfail([True] * 5, [False] * 5).low == -1.0


def test_columns_of_0_and_1_are_shares() -> None:
    rng = np.random.default_rng(0)
    base, tuned = rng.random(60) < 0.5, rng.random(60) < 0.7
    shares, numbers = passfail(base, tuned), paired(base.astype(float), tuned.astype(float))
    assert (numbers.low, numbers.high, numbers.p_value) == (shares.low, shares.high, shares.p_value)
    assert (numbers.wins, numbers.losses) == (shares.gained, shares.lost)
    assert numbers.base * 60 == pytest.approx(shares.base)


@pytest.mark.parametrize(("successes", "rows"), [(0, 10), (3, 10), (10, 10), (500, 1000)])
def test_a_share_has_wilsons_interval(successes: int, rows: int) -> None:
    p, z = successes / rows, 1.959963984540054
    centre, half = p + z * z / (2 * rows), z * np.sqrt(p * (1 - p) / rows + (z / rows) ** 2 / 4)
    ends = (centre - half) / (1 + z * z / rows), (centre + half) / (1 + z * z / rows)
    assert share(successes, rows) == pytest.approx(ends, abs=1e-12)
    assert share(0, 0) == (0.0, 1.0)


def test_the_line_between_real_and_not() -> None:
    found = Difference(9, 0, 1, 1, 0, 2, 0.05, 9, 0, 0)
    assert not found.distinguishable
    assert Difference(**{**asdict(found), "p_value": 0.0499}).distinguishable


def test_wrong_columns_are_refused() -> None:
    for compare in (paired, passfail):
        with pytest.raises(ValueError, match=r"one length, found .*'base': 1, 'tuned': 2"):
            compare([1], [1, 0])
    with pytest.raises(ValueError, match="'tokens': 1"):
        paired_perplexity([1.0, 2.0], [1.0, 2.0], [3])
    with pytest.raises(CheckFailedError, match=r"found nan in row 1 of 'tuned' \(1 of 2 rows\)"):
        paired([0.1, 0.2], [0.1, float("nan")])
    with pytest.raises(CheckFailedError, match="found inf in row 0 of 'base'"):
        paired_perplexity([float("inf")], [1.0], [1])


def test_the_seed_decides_and_json_takes_it() -> None:
    rng = np.random.default_rng(0)
    base, tuned = fractions(rng, 100, 0.9, 0.5)
    first, other = paired(base, tuned, seed=1), paired(base, tuned, seed=2)
    assert paired(base.tolist(), tuned.tolist(), seed=1) == first
    assert first.low != other.low
    assert first.low == pytest.approx(other.low, abs=2e-3)
    json.dumps([asdict(first), asdict(passfail([True], [False])), share(1, 3)])
    assert {type(value) for value in astuple(first)} == {int, float}


def test_fast_enough() -> None:
    rng = np.random.default_rng(0)
    columns = rng.random((2, 13, 500))
    began = time.process_time()
    for base, tuned in zip(*columns, strict=True):
        paired(base, tuned, seed=7)
    assert time.process_time() - began < 5


# ---- against scipy and brute force


@pytest.mark.parametrize("rows", [4, 9, 13])
def test_few_rows_are_enumerated_as_scipy_does(rows: int) -> None:
    from scipy.stats import permutation_test

    rng = np.random.default_rng(rows)
    base, tuned = rng.random(rows), rng.random(rows) + 0.2
    theirs = permutation_test(
        (base, tuned), lambda a, b: b.mean() - a.mean(), permutation_type="samples"
    )
    assert paired(base, tuned).p_value == pytest.approx(theirs.pvalue)
    # Rows that do not differ change nothing.
    assert paired([*base, 0.5], [*tuned, 0.5]).p_value == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("shift", [0.0, 0.06, 0.1])
def test_many_rows_are_sampled_as_scipy_does(shift: float) -> None:
    from scipy.stats import permutation_test

    rng = np.random.default_rng(5)
    base, tuned = rng.random(80), rng.random(80) + shift
    theirs = permutation_test(
        (tuned - base,),
        lambda change, axis: change.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    ours = paired(base, tuned).p_value
    assert 0.001 < ours < 0.999
    assert ours == pytest.approx(theirs.pvalue, abs=4 * np.sqrt(2 * ours * (1 - ours) / 9999))


def test_a_perplexitys_p_value_is_that_of_swapping_the_models() -> None:
    from scipy.stats import permutation_test

    rng = np.random.default_rng(1)
    tokens = rng.integers(1, 99, 11)
    base, tuned = tokens * rng.gamma(9, 0.2, 11), tokens * rng.gamma(9, 0.17, 11)
    theirs = permutation_test(
        (base, tuned),
        lambda a, b: np.exp(b.sum() / tokens.sum()) - np.exp(a.sum() / tokens.sum()),
        permutation_type="samples",
    )
    assert paired_perplexity(base, tuned, tokens).p_value == pytest.approx(theirs.pvalue)


def brute_force(
    columns: Floats, statistic: Callable[[Floats], float], rng: np.random.Generator
) -> tuple[float, float]:
    """The studentised bootstrap word for word, with jackknife errors in place of slopes."""

    def error(rows: Floats) -> float:
        n = len(rows)
        left_out = np.array([statistic(np.delete(rows, row, axis=0)) for row in range(n)])
        return float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))

    found, distances = statistic(columns), []
    for _ in range(2000):
        rows = columns[rng.integers(len(columns), size=len(columns))]
        if error(rows) > 1e-9:
            distances.append(abs(statistic(rows) - found) / error(rows))
    reach = float(np.quantile(distances, 0.95)) * error(columns)
    return found - reach, found + reach


def test_the_interval_of_a_mean_is_the_studentised_bootstraps() -> None:
    change = np.random.default_rng(3).lognormal(0, 1, 25) - 1
    plain = brute_force(change[:, None], lambda rows: rows.mean(), np.random.default_rng(4))
    found = paired(np.zeros(25), change)
    # Wide apart from Student's, so that the test can tell them apart.
    student = 2.0639 * change.std(ddof=1) / 5
    assert plain[1] - plain[0] > 1.1 * 2 * student
    assert (found.low, found.high) == pytest.approx(plain, abs=0.1 * student)


def test_the_interval_of_a_perplexity_is_the_studentised_bootstraps() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.lognormal(4, 0.7, 30).astype(int) + 1
    base, tuned = tokens * rng.gamma(6, 0.3, 30), tokens * rng.gamma(6, 0.2, 30)
    plain = brute_force(
        np.stack([base, tuned, tokens], axis=1),
        lambda rows: float(np.diff(np.exp(rows.mean(0)[:2] / rows.mean(0)[2]))[0]),
        np.random.default_rng(4),
    )
    found = paired_perplexity(base, tuned, tokens)
    assert (found.low, found.high) == pytest.approx(plain, abs=0.08 * (plain[1] - plain[0]))


def test_a_big_constant_costs_no_digits() -> None:
    change = np.random.default_rng(3).random((50, 1))

    def mean(means: Floats) -> tuple[Floats, Floats]:
        return means[..., 0], np.ones_like(means)

    near, far = interval(change, mean, 0), interval(change + 1e8, mean, 0)
    assert np.subtract(far, 1e8) == pytest.approx(near, abs=1e-6)


@pytest.mark.parametrize(
    ("gained", "lost", "rows"), [(12, 2, 50), (3, 0, 40), (1, 9, 200), (5, 5, 11)]
)
def test_tangos_ends_are_where_the_score_test_turns(gained: int, lost: int, rows: int) -> None:
    from scipy.optimize import minimize_scalar

    def score(true: float) -> float:
        # The likeliest share lost, given the difference, found by search and not by formula.
        def unlikely(q: float) -> float:
            counts = (gained, q + true), (lost, q), (rows - gained - lost, 1 - 2 * q - true)
            return -sum(count * np.log(max(p, 1e-300)) for count, p in counts if count)

        ends = max(0.0, -true), (1 - true) / 2
        q = minimize_scalar(unlikely, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
        return float((gained - lost - rows * true) / np.sqrt(rows * (2 * q + true - true * true)))

    answers = [(0, 1)] * gained + [(1, 0)] * lost + [(1, 1)] * (rows - gained - lost)
    base, tuned = zip(*answers, strict=True)
    found = passfail(base, tuned)
    assert score(found.low) == pytest.approx(1.959964, abs=1e-3)
    assert score(found.high) == pytest.approx(-1.959964, abs=1e-3)


# ---- simulated


def normal(shift: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Floats, ...]:
        question = rng.normal(0, 1, ROWS)
        return question + rng.normal(0, 0.5, ROWS), question + shift + rng.normal(0, 0.7, ROWS)

    return draw


def lengths(ratio: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Floats, ...]:
        base, tuned = rng.normal(4.5, 0.5, ROWS) + rng.normal(0, 0.6, (2, ROWS))
        return np.exp(base), ratio * np.exp(tuned)

    return draw


def unlike(rng: np.random.Generator) -> tuple[Floats, ...]:
    """The same mean of 1, one symmetric, one skewed."""
    return rng.normal(1, 0.2, ROWS), rng.gamma(0.5, 2, ROWS)


def shares(base: float, tuned: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Floats, ...]:
        first = rng.random(ROWS) < base
        again = rng.random(ROWS) < 0.5
        return first, np.where(again, first, rng.random(ROWS) < tuned)

    return draw


def nats(ratio: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Floats, ...]:
        tokens = rng.lognormal(4.4, 0.6, ROWS).astype(int) + 1
        hard = tokens * rng.gamma(8, 0.2, ROWS)
        base, tuned = hard * rng.lognormal(-0.045, 0.3, (2, ROWS))
        return base, ratio * tuned, tokens

    return draw


def gain(shape: float, zeros: float) -> float:
    """The true difference of :func:`fractions`."""
    return 0.7 * 0.5 * ((1 - zeros) * shape / (shape + 6) - 0.4 * 0.7 / 6.7)


LONG = float(np.exp(4.5 + (0.5**2 + 0.6**2) / 2))
SHAPES: dict[str, tuple[Callable[..., Any], Draw, float]] = {
    "normal, same": (paired, normal(0), 0.0),
    "normal, better": (paired, normal(0.2), 0.2),
    "fractions, same": (paired, lambda rng: fractions(rng, ROWS, 0.7, 0.6), 0.0),
    "fractions, better": (paired, lambda rng: fractions(rng, ROWS, 1.2, 0.4), gain(1.2, 0.4)),
    "fractions, worse": (paired, lambda rng: fractions(rng, ROWS, 0.5, 0.9), gain(0.5, 0.9)),
    "lengths, same": (paired, lengths(1), 0.0),
    "lengths, shorter": (paired, lengths(0.6), -0.4 * LONG),
    "another shape, same mean": (paired, unlike, 0.0),
    "shares, same": (passfail, shares(0.5, 0.5), 0.0),
    "shares, better": (passfail, shares(0.5, 0.7), 0.1),
    "shares, rare": (paired, shares(0.02, 0.08), 0.03),
    "perplexity, same": (paired_perplexity, nats(1), 0.0),
    "perplexity, lower": (paired_perplexity, nats(0.8), np.exp(1.28) - np.exp(1.6)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_500_simulated_comparisons_keep_what_the_interval_and_the_p_value_promise(
    name: str,
) -> None:
    compare, draw, true = SHAPES[name]
    rng = np.random.default_rng(1)
    found = [compare(*draw(rng)) for _ in range(500)]
    covered = np.mean([one.low <= true <= one.high for one in found])
    significant = np.mean([one.p_value < 0.05 for one in found])
    print(f"{name:25} covered {covered:6.1%}  significant {significant:6.1%}")
    assert 0.93 <= covered <= 0.97
    if true == 0:
        assert significant <= 0.07
    else:
        assert significant > 0.2
