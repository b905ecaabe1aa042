"""The serve YAML."""

from pathlib import Path

import pytest

from medqa import config
from medqa.errors import ConfigError
from medqa.serve.settings import Settings
from tests.serve.parrot import VALUES


def test_both_recipes_are_valid_and_differ_only_in_what_the_model_decides(root: Path) -> None:
    tiny, large = (
        config.load(root / f"configs/{name}/serve.yaml", (), Settings).model_dump()
        for name in ("tiny", "chatglm3-6b")
    )
    assert {key for key in tiny if tiny[key] != large[key]} == {
        "model_name_or_path",
        "adapter_name_or_path",
        "name",
        "max_new_tokens",
        "max_prompt_tokens",
        "max_prompt_characters",
        "max_body_bytes",
        "concurrency",
        "queue",
        "request_timeout",
        "shutdown_timeout",
    }
    assert tiny["host"] == "127.0.0.1"
    assert not tiny["log_text"]


def test_an_adapter_brings_the_base() -> None:
    assert Settings(**VALUES).models == {"parrot": "tuned", "parrot-base": "base"}
    merged = Settings(**VALUES | {"adapter_name_or_path": None})
    assert merged.models == {"parrot": "tuned"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_body_bytes": 999}, "max_body_bytes 999 cannot hold max_prompt_characters 250"),
        ({"concurrency": 0}, "concurrency"),
        ({"queue": -1}, "queue"),
        ({"request_timeout": 0}, "request_timeout"),
        ({"request_timeout": float("inf")}, "request_timeout"),
        ({"name": "a b"}, "name"),
        ({"name": "../x"}, "name"),
        ({"port": 65536}, "port"),
        ({"engine": "magic"}, "engine"),
        ({"gaurd": None}, "did you mean 'guard'?"),
    ],
)
def test_what_is_wrong_is_named(change: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("?", r"\?")):
        config.validate(VALUES | change, Settings, "serve.yaml")
