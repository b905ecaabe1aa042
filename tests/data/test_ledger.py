from contextlib import closing
from pathlib import Path

import pytest

from medqa.data import rows
from medqa.data.ledger import Ledger
from medqa.data.rows import HUATUO, Limits, Record, Row
from medqa.data.split import Clusters
from medqa.errors import CheckFailedError

LIMITS = Limits(1, 100, 1, 100)


def entered(ledger: Ledger, number: int) -> list[Record]:
    row = Row("s", number, {"questions": [["问一", "问二"]], "answers": "答"}, "raw")
    outcomes = rows.convert(row, HUATUO, LIMITS)
    ledger.enter(row, outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Record)]


def test_all_that_entered_left(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        one, two = entered(ledger, 900)
        ledger.keep("test", [one], Clusters())
        ledger.reject(two.rejected(rows.DUPLICATE))
    ledger.check()
    counts = ledger.facts()["counts"]
    assert counts == {
        "rows": 1,
        "pairs": 2,
        "train": 0,
        "test": 1,
        "rejects": 1,
        "reasons": {"duplicate": 1},
    }


def test_a_lost_pair_is_a_failure(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        ledger.keep("train", entered(ledger, 1)[:1], Clusters())
    with pytest.raises(CheckFailedError, match="2 pairs of 1 rows went in, 1 came out and 0 rows"):
        ledger.check()


def test_a_lost_row_is_a_failure_even_if_the_sum_is_right(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        one, two = entered(ledger, 1), entered(ledger, 2)
        ledger.keep("train", [*one, *one], Clusters())
    assert two
    with pytest.raises(CheckFailedError, match="4 came out and 1 rows are in no file"):
        ledger.check()
