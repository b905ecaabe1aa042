"""A golden base and an adapter that changes its answers."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapters import BASE, write_golden_pair

# A tenth of the vocabulary ends an answer, so that lengths differ.
STOPS = list(range(7, 512, 10))


@pytest.fixture(scope="session")
def pair(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that holds both; nobody writes into it."""
    project = tmp_path_factory.mktemp("pair")
    write_golden_pair(root, project, std=0.2)
    file = project / BASE / "generation_config.json"
    config = json.loads(file.read_text("utf-8")) | {"eos_token_id": STOPS}
    file.write_text(json.dumps(config), "utf-8")
    return project


@pytest.fixture(scope="module")
def in_pair(pair: Path) -> Iterator[Path]:
    """The project, as the root that relative paths start from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDQA_ROOT", str(pair))
        yield pair


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Twenty-four of 3 to 40 ids, in no order."""
    rng = random.Random(0)
    return [[rng.randrange(3, 500) for _ in range(rng.randrange(3, 41))] for _ in range(24)]


@pytest.fixture(scope="session")
def tokenizer(pair: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pair / BASE)


@pytest.fixture(scope="session")
def real_tokenizer(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """ChatGLM3-6B's."""
    from transformers import AutoTokenizer

    from medqa.model import tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    pieces = tokenizer.sentencepiece(shared / "chatglm3/tokenizer.model")
    tokenizer.write_tokenizer(pieces, tokenizer.CHATGLM3, folder, 8192)
    return AutoTokenizer.from_pretrained(folder)
