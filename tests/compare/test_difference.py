"""The marked pieces are the two texts, and what is not marked is in both."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.compare.difference import Piece, marked

TEXT = st.text(alphabet="不能可以喝酒，。ab", max_size=40)


def shown(pieces: list[Piece]) -> str:
    return "".join(f"[{p.text}]" if p.changed else p.text for p in pieces)


@pytest.mark.parametrize(
    ("base", "tuned", "before", "after"),
    [
        ("可以喝酒。", "不可以喝酒。", "可以喝酒。", "[不]可以喝酒。"),
        ("每日一次", "每日一次", "每日一次", "每日一次"),
        ("", "多喝水", "", "[多喝水]"),
        ("多喝水", "", "[多喝水]", ""),
        ("每次5mg，饭后", "每次50mg，饭后", "每次5mg，饭后", "每次5[0]mg，饭后"),
        (
            "这是药的名",
            "那有病的因",
            "[这是药的名]",
            "[那有病的因]",
        ),  # 的 alone is nothing in common
    ],
)
def test_what_is_marked(base: str, tuned: str, before: str, after: str) -> None:
    pieces = marked(base, tuned)
    assert (shown(pieces[0]), shown(pieces[1])) == (before, after)


@given(TEXT, TEXT)
def test_the_pieces_add_up(base: str, tuned: str) -> None:
    ours, theirs = marked(base, tuned)
    assert "".join(p.text for p in ours) == base
    assert "".join(p.text for p in theirs) == tuned
    common = ["".join(p.text for p in side if not p.changed) for side in (ours, theirs)]
    assert common[0] == common[1]
    for side in (ours, theirs):
        assert all(a.changed != b.changed for a, b in itertools.pairwise(side))
