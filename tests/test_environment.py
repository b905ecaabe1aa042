"""Variables that are set for a while."""

import os

import pytest

from medqa.environment import defaults


def test_set_where_it_was_not_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDQA_ONE", raising=False)
    monkeypatch.setenv("MEDQA_TWO", "the user's")
    with defaults(MEDQA_ONE="ours", MEDQA_TWO="ours"):
        assert os.environ["MEDQA_ONE"] == "ours"
        assert os.environ["MEDQA_TWO"] == "the user's"
    assert "MEDQA_ONE" not in os.environ
    assert os.environ["MEDQA_TWO"] == "the user's"


def test_taken_back_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDQA_ONE", raising=False)
    with pytest.raises(ValueError, match="in the block"), defaults(MEDQA_ONE="ours"):
        raise ValueError("in the block")
    assert "MEDQA_ONE" not in os.environ
