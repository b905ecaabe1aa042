"""Checkpoints in the original layout."""

import pytest


@pytest.fixture(scope="session")
def golden(root):
    """A small random checkpoint with figures that the original code computed."""
    return root / "tests" / "fixtures" / "golden"


@pytest.fixture(scope="session")
def small_tokenizer(golden):
    """A tokenizer.model of 480 pieces."""
    return golden / "tokenizer.model"
