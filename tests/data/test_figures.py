"""The numbers of the report, counted by hand."""

from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from medqa.data import figures
from medqa.data.figures import clusters, departments, histogram, tokens


def test_every_value_is_in_one_bar() -> None:
    values = [0, 1, 5, 63, 64, 10_000]
    found = histogram(pl.Series(values * 10))
    assert found
    assert sum(bar.rows for bar in found.bars) == found.rows == 60
    assert [b.right for b in found.bars[:-1]] == [b.left for b in found.bars[1:]]
    assert (found.longest, found.median) == (10_000, 63)


def test_a_few_huge_values_do_not_flatten_the_rest() -> None:
    found = histogram(pl.Series([*range(100)] * 20 + [43_809]))
    assert found
    assert found.bars[-1].left < 120
    assert found.bars[-1].rows >= 1
    assert found.longest == 43_809


def test_bars_have_round_widths() -> None:
    widths = {bar.right - bar.left for bar in histogram(pl.Series(range(1000))).bars}  # type: ignore[union-attr]
    assert widths == {50}
    assert [figures._round_up(v) for v in (0.1, 1, 1.5, 3, 9, 21, 30, 230, 260)] == [
        1, 1, 2, 5, 10, 25, 50, 250, 500,
    ]  # fmt: skip


@pytest.mark.parametrize("values", [range(2000), [5, 6], range(0, 90_000, 7)])
def test_the_mark_stands_between_two_bars(values: range | list[int]) -> None:
    found = histogram(pl.Series(values), 512)
    assert found
    assert 512 in {bar.left for bar in found.bars}
    assert len(found.bars) <= 2 * figures.BINS + 1


def test_nothing_and_a_single_value() -> None:
    assert histogram(pl.Series([], dtype=pl.UInt32)) is None
    found = histogram(pl.Series([0]))
    assert found and sum(bar.rows for bar in found.bars) == 1


def test_departments_are_counted_by_split_and_the_unknown_come_last() -> None:
    rows = pl.DataFrame(
        {
            "department": ["", "", "", "内科", "内科", "外科"],
            "split": ["train", "train", "test", "train", "test", "train"],
        }
    )
    assert departments(rows) == {
        "shown": [
            {"department": "内科", "rows": 2, "train": 1, "test": 1},
            {"department": "外科", "rows": 1, "train": 1, "test": 0},
            {"department": "", "rows": 3, "train": 2, "test": 1},
        ],
        "others": 0,
        "most": 2,
        "known": 3,
        "rows": 6,
    }


def test_clusters_are_counted_by_size_and_crossing_is_seen() -> None:
    rows = pl.DataFrame(
        {
            "cluster": [1, 2, 2, 3, 3, 3, 3, 4, 4],
            "split": ["train"] * 7 + ["test", "test"],
            "question": ["a", "b", "c", "d", "d", "e", "f", "g", "h"],
            "rank": [9, 8, 7, 6, 5, 4, 3, 2, 1],
        },
        schema_overrides={"cluster": pl.UInt64},
    )
    found = clusters(rows)
    assert found["sizes"] == [
        {"name": "1", "clusters": 1, "rows": 1},
        {"name": "2", "clusters": 2, "rows": 4},
        {"name": "4–5", "clusters": 1, "rows": 4},
    ]
    assert (found["count"], found["crossing"], found["largest"], found["distinct"]) == (4, 0, 4, 3)
    assert (found["split"], list(found["questions"])) == ("train", ["f", "e", "d"])
    leaking = rows.with_columns(split=pl.Series(["train", "test", "train"] + ["train"] * 6))
    assert clusters(leaking)["crossing"] == 1


def test_tokens_say_what_is_missing() -> None:
    train = pl.DataFrame({"question": ["a"], "answer": ["b"], "rank": [1]})
    assert tokens(SimpleNamespace(tokenizer=None), train) == {"absent": None}  # type: ignore[arg-type]
    found = tokens(SimpleNamespace(tokenizer="models/absent"), train)  # type: ignore[arg-type]
    assert "import_model.py ORIGINAL models/absent" in found["absent"]


def test_tokens_are_counted_over_a_sample(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medqa.data.chat import Chat
    from medqa.model.importer import import_model

    import_model(root / "tests/fixtures/golden", tmp_path / "t", dtype="keep", origin="test")
    monkeypatch.setattr(figures, "TOKEN_ROWS", 2)
    train = pl.DataFrame(
        {"question": ["头疼", "感冒了", "x" * 99], "answer": ["看医生", "喝水" * 50, "y"],
         "rank": [2, 1, 3]}
    )  # fmt: skip
    recipe = SimpleNamespace(kind="pairs", tokenizer=str(tmp_path / "t"), cutoff_len=40)
    found = tokens(recipe, train)  # type: ignore[arg-type]
    encoder = Chat(tmp_path / "t")
    lengths = [
        encoder.encode("头疼", "看医生").length,
        encoder.encode("感冒了", "喝水" * 50).length,
    ]
    assert (found["rows"], found["all"]) == (2, False)
    assert found["mean"] == sum(lengths) / 2
    assert found["cut"][40] == sum(length > 40 for length in lengths) == 1
    assert sorted(found["cut"]) == [40, 256, 512, 1024, 2048]
    assert found["whole"].longest == max(lengths)
    recipe.cutoff_len = max(lengths)
    assert tokens(recipe, train)["cut"][max(lengths)] == 0  # type: ignore[arg-type]
