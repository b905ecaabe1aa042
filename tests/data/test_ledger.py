from typing import Any

import pytest

from medqa.data.ledger import Ledger
from medqa.errors import CheckFailedError


def entered(**changes: Any) -> dict[str, dict[str, Any]]:
    return {"s": {"rows": 3, "pairs": 4, "kept": 3, "reasons": {"empty_answer": 1}, **changes}}


def test_all_that_entered_left() -> None:
    ledger = Ledger(entered(), ["train", "test"])
    ledger.keep("s", "train", 1)
    ledger.keep("s", "test", 1)
    ledger.reject("s", "duplicate", 1)
    ledger.check({"train": 1, "test": 1, "rejects": 2})
    assert ledger.facts()["counts"] == {
        "rows": 3,
        "pairs": 4,
        "train": 1,
        "test": 1,
        "rejects": 2,
        "reasons": {"empty_answer": 1, "duplicate": 1},
    }
    assert ledger.losses() == "s: 3 rows, empty_answer 1, duplicate 1"
    assert "s          3      4      1     1        2" in ledger.table()


def test_a_lost_pair_is_a_failure() -> None:
    ledger = Ledger(entered(), ["train", "test"])
    ledger.keep("s", "train", 2)
    with pytest.raises(CheckFailedError, match="4 pairs of 3 rows went in and 3 came out"):
        ledger.check({"train": 2, "test": 0, "rejects": 1})


def test_a_row_without_any_pair_is_a_failure() -> None:
    ledger = Ledger(entered(rows=5), ["train", "test"])
    ledger.keep("s", "train", 3)
    with pytest.raises(CheckFailedError, match="4 pairs of 5 rows"):
        ledger.check({"train": 3, "test": 0, "rejects": 1})


def test_a_file_that_holds_less_than_the_books_is_a_failure() -> None:
    ledger = Ledger(entered(), ["train", "test"])
    ledger.keep("s", "train", 3)
    with pytest.raises(CheckFailedError, match="the files hold"):
        ledger.check({"train": 2, "test": 0, "rejects": 1})
