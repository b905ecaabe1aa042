"""Fixtures that all rooms share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real reference data beside the checkout; users do not have it, our CI always does."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        if os.environ.get("MEDQA_SHARED") == "required":
            pytest.fail("../shared is absent, and here it must be there")
        pytest.skip("needs ../shared (real ChatGLM3 tokenizer and Huatuo rows), absent here")
    return folder
