"""Who may ask."""

import pytest

from medqa.errors import ConfigError
from medqa.serve import access
from medqa.serve.access import Access
from medqa.serve.refusal import Refusal

KEY = "s3cret-key"


@pytest.mark.parametrize(
    ("host", "only_this_machine"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_a_host_that_others_reach_wants_a_key(host: str, only_this_machine: bool) -> None:
    assert access.is_loopback(host) == only_this_machine
    access.require_safe(host, KEY, "serve.yaml")
    if only_this_machine:
        access.require_safe(host, None, "serve.yaml")
    else:
        with pytest.raises(ConfigError, match="MEDQA_API_KEY is not set; run: export"):
            access.require_safe(host, None, "serve.yaml")


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, key in ((KEY, KEY), (f" {KEY}\n", KEY), ("", None), ("  ", None)):
        monkeypatch.setenv(access.VARIABLE, value)
        assert access.key_from_environment() == key
    for value in ("a b", "密钥", "a\tb"):
        monkeypatch.setenv(access.VARIABLE, value)
        with pytest.raises(ConfigError) as caught:
            access.key_from_environment()
        assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {KEY}", None),
        (f"bearer  {KEY}", None),
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {KEY[:-1]}", 401),
        (f"Basic {KEY}", 401),
        (KEY, 401),
        ("Bearer \xff\xfe", 401),
    ],
)
def test_only_the_whole_key_opens(given: str | None, status: int | None) -> None:
    door = Access(KEY, "127.0.0.1")
    headers = {"host": "any.example"} | ({} if given is None else {"authorization": given})
    for path in ("/health", "/ready", "/", "/page/page.js", "/page.json", "/openapi.json"):
        door.check(path, headers)
    for path in ("/v1/chat/completions", "/v1/models", "/metrics", "/nothing", "//health"):
        if status is None:
            door.check(path, headers)
            continue
        with pytest.raises(Refusal) as caught:
            door.check(path, headers)
        assert caught.value.status == status
        assert caught.value.headers == {"WWW-Authenticate": "Bearer"}
        assert KEY not in caught.value.message


@pytest.mark.parametrize(
    ("host", "well"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8000", True),
        ("localhost:6006", True),
        ("LocalHost", True),
        ("[::1]:8000", True),
        ("127.0.0.2:8000", True),  # what it listens on
        ("evil.example", False),
        ("127.0.0.1.evil.example:8000", False),
        ("localhost.evil.example", False),
        ("[::1].evil.example", True),  # no such name can be asked for
        ("", False),
    ],
)
def test_without_a_key_a_foreign_name_is_refused(host: str, well: bool) -> None:
    door = Access(None, "127.0.0.2")
    if well:
        door.check("/v1/models", {"host": host})
        return
    for path in ("/v1/models", "/", "/health"):
        with pytest.raises(Refusal) as caught:
            door.check(path, {"host": host})
        assert caught.value.status == 421
    with pytest.raises(Refusal):
        door.check("/", {})
