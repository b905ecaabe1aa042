"""Is the difference real? Intervals and p-values of base against tuned, row by row.

Both sides answered the same questions, so everything here is paired: a row is one question and
what is resampled is rows. Every result is decided by ``seed`` and the numbers given.

- **Interval** of a mean or a perplexity: studentised bootstrap over rows, symmetric (Hall 1988),
  never narrower than Student's. Differences of answers' scores are lumpy: most rows tie, a few
  differ much. In 1,500 simulated comparisons of 200 such rows it covered the truth in 95 to 96 %,
  percentile and BCa intervals in as few as 93 and 91 % (of 60 rows: 95 to 98, 88 and 85 %).
- **Interval** of a share: Wilson's; of the difference of two paired shares: Tango's score interval
  (1998), because a bootstrap of two or three differing rows is far too narrow.
- **p-value**: how often would the difference be this large if base and tuned had swapped their
  places by a coin for every row? Enumerated where few rows differ, sampled otherwise. For shares
  this is McNemar's exact test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medqa.compare.resampling import LEVEL, interval, swapped
from medqa.errors import CheckFailedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """Base against tuned on one metric.

    Attributes:
        rows: Rows that both answered.
        base: The base's mean (or perplexity).
        tuned: The tuned model's.
        difference: Tuned minus base.
        low: Lower end of the difference's 95 % interval.
        high: Upper end.
        p_value: Of the two-sided paired permutation test.
        wins: Rows in which the tuned model is better.
        ties: Rows in which both are equal.
        losses: Rows in which the base is better.
    """

    rows: int
    base: float
    tuned: float
    difference: float
    low: float
    high: float
    p_value: float
    wins: int
    ties: int
    losses: int

    @property
    def distinguishable(self) -> bool:
        """Whether chance alone would show such a difference in less than one of 20 comparisons."""
        return self.p_value < ALPHA


@dataclass(frozen=True)
class PassFail:
    """Base against tuned on questions that are passed or failed.

    Attributes:
        rows: Questions that both answered.
        base: How many the base passed.
        tuned: How many the tuned model passed.
        gained: Passed by the tuned model alone.
        lost: Passed by the base alone.
        low: Lower end of the 95 % interval of the difference of the shares, tuned minus base.
        high: Upper end.
        p_value: McNemar's exact test, two-sided.
    """

    rows: int
    base: int
    tuned: int
    gained: int
    lost: int
    low: float
    high: float
    p_value: float


def paired(
    base: Sequence[float], tuned: Sequence[float], *, higher_is_better: bool = True, seed: int = 0
) -> Difference:
    """Compares the means of two columns of numbers.

    Columns of nothing but 0 and 1 are shares and get what :func:`passfail` gives. No rows give
    zeros and p = 1. Of other numbers, where no row differs, the interval is 0 to 0; a single row's
    is its difference alone (nothing can be said of others), and where fewer than about ten rows
    differ it is too narrow: the p-value, being exact there, is what counts.

    Args:
        base: The base's number of each row.
        tuned: The tuned model's number of each row, in the same order.
        higher_is_better: Says which rows are wins, nothing else.
        seed: Of the resampling.

    Raises:
        CheckFailedError: A number is not finite.
        ValueError: The columns are not of one length.
    """
    import numpy as np

    ours, theirs = _columns(base=base, tuned=tuned)
    change = theirs - ours
    if not len(change):
        return Difference(0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0, 0, 0)
    up, down = int((change > 0).sum()), int((change < 0).sum())
    if set(ours) | set(theirs) <= {0.0, 1.0}:
        ends, p_value = _tango(up, down, len(change)), _mcnemar(up, down)
    else:
        ends = interval(change[:, None], lambda mean: (mean[..., 0], np.ones_like(mean)), seed)
        p_value = swapped(change, seed)
    gain = change if higher_is_better else -change
    return _difference(ours.mean(), theirs.mean(), ends, p_value, gain)


def paired_perplexity(
    base_nll: Sequence[float], tuned_nll: Sequence[float], tokens: Sequence[int], *, seed: int = 0
) -> Difference:
    """Compares two perplexities of the same texts.

    A perplexity is ``exp(sum of nats / sum of tokens)`` over all rows, so that long texts count
    for more; rows are resampled, their tokens with them. Swapping a row's two sums leaves their
    total as it is, so the permutation test of the perplexities is that of the sums. A win is a row
    with fewer nats. Rows without tokens measure nothing and are left out.

    Args:
        base_nll: Nats that the base needs for each row, summed over its tokens.
        tuned_nll: The same of the tuned model.
        tokens: Counted tokens of each row.
        seed: Of the resampling.

    Raises:
        CheckFailedError: A number is not finite.
        ValueError: The columns are not of one length.
    """
    import numpy as np

    table = np.stack(_columns(base=base_nll, tuned=tuned_nll, tokens=tokens), axis=1)
    table = table[table[:, 2] > 0]
    if not len(table):
        return paired([], [])

    def gap(means: "Floats") -> tuple["Floats", "Floats"]:
        sums, total = means[..., :2], means[..., 2:]
        both = np.exp(sums / total)
        slopes = both * np.array([-1.0, 1.0]) / total
        of_total = -(slopes * sums).sum(-1, keepdims=True) / total
        return both[..., 1] - both[..., 0], np.concatenate([slopes, of_total], axis=-1)

    base, tuned = np.exp(table[:, :2].sum(axis=0) / table[:, 2].sum())
    change = table[:, 1] - table[:, 0]
    ends = interval(table, gap, seed)
    return _difference(base, tuned, ends, swapped(change, seed), -change)


def passfail(base: Sequence[bool], tuned: Sequence[bool]) -> PassFail:
    """Compares two columns of passed and failed; no rows give zeros and p = 1.

    Raises:
        ValueError: The columns are not of one length.
    """
    ours, theirs = _columns(base=base, tuned=tuned)
    gained, lost = int((theirs > ours).sum()), int((theirs < ours).sum())
    low, high = _tango(gained, lost, len(ours))
    p_value, passed = _mcnemar(gained, lost), (int(ours.sum()), int(theirs.sum()))
    return PassFail(len(ours), *passed, gained, lost, low, high, p_value)


def share(successes: int, rows: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share; 0 to 1 of no rows."""
    from scipy.stats import binomtest

    if not rows:
        return 0.0, 1.0
    ends = binomtest(successes, rows).proportion_ci(LEVEL, method="wilson")
    return float(ends.low), float(ends.high)


def _columns(**columns: Sequence[float]) -> list["Floats"]:
    """Returns the columns as float64 arrays after looking at their lengths and numbers."""
    import numpy as np

    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected columns of one length, found {lengths}")
    for name, array in arrays.items():
        wrong = np.flatnonzero(~np.isfinite(array))
        if len(wrong):
            raise CheckFailedError(
                f"expected a finite number in every row, found {array[wrong[0]]} in row "
                f"{wrong[0]} of '{name}' ({len(wrong)} of {len(array)} rows): the model's numbers "
                "overflow; train it in bf16, or with a lower learning_rate"
            )
    return list(arrays.values())


def _difference(
    base: Any, tuned: Any, ends: tuple[float, float], p_value: float, gain: "Floats"
) -> Difference:
    means = float(base), float(tuned), float(tuned - base)
    counts = (int(rows.sum()) for rows in (gain > 0, gain == 0, gain < 0))
    return Difference(len(gain), *means, *ends, p_value, *counts)


def _mcnemar(gained: int, lost: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _tango(gained: int, lost: int, rows: int) -> tuple[float, float]:
    """Returns Tango's score interval of (gained - lost) / rows (Statistics in Medicine 17, 1998).

    It holds the differences that a score test at 5 % does not refuse. Where no row differs it is
    not 0 to 0: few equal rows say little about the next one.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    if not rows:
        return 0.0, 0.0
    found, limit = (gained - lost) / rows, ndtri((1 + LEVEL) / 2)

    def score(true: float) -> float:
        # The share lost that is likeliest if the difference were `true`: root of a quadratic.
        linear = (2 * rows - gained + lost) * true - gained - lost
        root = math.sqrt(max(linear**2 + 8 * rows * lost * true * (1 - true), 0.0))
        variance = rows * ((root - linear) / (2 * rows) + true * (1 - true))
        away = gained - lost - rows * true
        return away / math.sqrt(variance) if variance > 0 else 0.0

    edge = 1 - 1e-12
    low = brentq(lambda true: score(true) - limit, -edge, found) if found > -edge else -1.0
    high = brentq(lambda true: score(true) + limit, found, edge) if found < edge else 1.0
    return float(low), float(high)
