"""Asking an endpoint: what is sent, what comes back, and every way in which it goes wrong."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqa.compare.endpoint import Endpoint, EndpointAnswers, rough_tokens
from medqa.compare.generate import Answer
from medqa.config import load
from medqa.errors import ConfigError, StepError, UserError

from .server import ChatServer, Reply, Request, Respond, serving

QUESTIONS = [f"问题{n}" for n in range(6)]
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("OPENAI_"):
            monkeypatch.delenv(name)


def endpoint(server: ChatServer, **changes: Any) -> Endpoint:
    values = {"base_url": server.url, "model": "m", "timeout": 5, "retries": 1, "concurrency": 2}
    return Endpoint.model_validate(values | changes)


def asked(to: Endpoint, questions: list[str] = QUESTIONS, **options: Any) -> dict[int, Answer]:
    found: dict[int, Answer] = {}
    for batch in EndpointAnswers(to).answers(questions, max_new_tokens=32, **options):
        assert not found.keys() & dict(batch).keys()
        found |= dict(batch)
    return found


def echo(request: Request, before: int) -> Reply:
    return Reply(f" 答{request.question}\n", usage=(3, len(request.question)))


def only(broken: Reply, *, times: int = 99, at: str = QUESTIONS[2]) -> Respond:
    """Goes wrong in answering one question, so many times."""

    def respond(request: Request, before: int) -> Reply:
        return broken if request.question == at and before < times else echo(request, before)

    return respond


def test_every_question_is_asked_once_and_greedily() -> None:
    with serving(echo) as server:
        found = asked(endpoint(server, seed=7))
        assert found == {n: Answer(f"答{q}", len(q), True) for n, q in enumerate(QUESTIONS)}
        assert sorted(server.questions) == QUESTIONS
        assert server.requests[0].path == "/v1/chat/completions"
        assert server.requests[0].body == {
            "model": "m",
            "messages": [{"role": "user", "content": server.questions[0]}],
            "temperature": 0,
            "seed": 7,
            "max_tokens": 32,
        }


def test_what_is_kept_is_not_asked() -> None:
    with serving(echo) as server:
        assert asked(endpoint(server), kept={0: None, 3: None}).keys() == {1, 2, 4, 5}
        assert asked(endpoint(server), kept=range(6)) == {}
        assert asked(endpoint(server), []) == {}
        assert len(server.requests) == 4


def test_no_more_than_concurrency_at_a_time() -> None:
    def slow(request: Request, before: int) -> Reply:
        return Reply(seconds=0.1)

    for most in (1, 3):
        with serving(slow) as server:
            asked(endpoint(server, concurrency=most))
            assert server.most_at_a_time == most


def test_answers_come_as_they_are_ready() -> None:
    with serving(only(Reply("晚", seconds=1), at=QUESTIONS[0])) as server:
        batches = EndpointAnswers(endpoint(server)).answers(QUESTIONS, max_new_tokens=32)
        order = [n for batch in batches for n, _ in batch]
    assert order == [1, 2, 3, 4, 5, 0]


def test_only_the_keys_that_are_needed_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-1")
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\n")
    with serving(echo) as server:
        asked(endpoint(server), ["一"])
        asked(endpoint(server, api_key_env="JUDGE_KEY"), ["二"])
        bare, keyed = (request.headers for request in server.requests)
    assert "authorization" not in bare
    assert keyed["authorization"] == f"Bearer {KEY}"
    assert keyed.keys() == {
        "host",
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
        "x-stainless-async",
        "x-stainless-lang",
        "x-stainless-package-version",
        "x-stainless-raw-response",
        "x-stainless-read-timeout",
        "x-stainless-retry-count",
    }


def test_extra_keys_replace_and_remove_ours() -> None:
    extra = {"max_tokens": None, "max_completion_tokens": 99, "temperature": None, "top_k": 1}
    with serving(echo) as server:
        asked(endpoint(server, extra=extra), ["一"])
        body = server.requests[0].body
    assert body.keys() == {"model", "messages", "seed", "max_completion_tokens", "top_k"}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (Reply("长", finish="length"), Answer("长", 5, False)),
        (Reply(None, finish="content_filter"), Answer("", 5, False)),
        (Reply(None), Answer("", 5, True)),
        (Reply("没有结束原因", finish=None), Answer("没有结束原因", 5, True)),
        (Reply("没有计数", usage=None), Answer("没有计数", 4, True)),
        (Reply(content_type="text/plain"), Answer("好的。", 5, True)),
    ],
)
def test_how_an_answer_ended(reply: Reply, answer: Answer) -> None:
    with serving(lambda request, before: reply) as server:
        assert asked(endpoint(server), ["一"]) == {0: answer}


BROKEN = {
    "Error code: 500 - 内部错误": Reply("内部错误", status=500),
    "Error code: 429 - 太快": Reply("太快", status=429, headers={"Retry-After": "0.1"}),
    "no answer within 0.5 s": Reply(seconds=9),
    "no chat completion: {": Reply(raw=b'{"choices": [{"message": {"content": "\xe5'),
    "no chat completion: <html>": Reply(raw=b"<html>busy", content_type="text/html"),
    "no chat completion: ": Reply(raw=b'{"choices": []}'),
    "peer closed connection": Reply(raw=b'{"choices"', promised=500),
    "Server disconnected": Reply(hang_up=True),
}


@pytest.mark.parametrize(("cause", "broken"), BROKEN.items())
def test_what_breaks_once_is_tried_again(cause: str, broken: Reply) -> None:
    with serving(only(broken, times=1)) as server:
        found = asked(endpoint(server, timeout=0.5 if broken.seconds else 5))
        assert found == {n: Answer(f"答{q}", len(q), True) for n, q in enumerate(QUESTIONS)}
        assert server.questions.count(QUESTIONS[2]) == 2


@pytest.mark.parametrize(("cause", "broken"), BROKEN.items())
def test_what_stays_broken_is_reported_and_the_rest_kept(cause: str, broken: Reply) -> None:
    found: dict[int, Answer] = {}
    with serving(only(broken)) as server:
        to = endpoint(server, timeout=0.5 if broken.seconds else 5)
        with pytest.raises(StepError) as error:
            for batch in EndpointAnswers(to).answers(QUESTIONS, max_new_tokens=32):
                found |= dict(batch)
        assert server.questions.count(QUESTIONS[2]) == 2, "retries + 1"
        answered = set(server.questions) - {QUESTIONS[2]}
    message = str(error.value)
    assert cause in message and f"endpoint 'm' at {to.base_url} failed (retries: 1)" in message
    assert "\n" not in message and "run the same command again" in message
    assert {QUESTIONS[n] for n in found} == answered, "an answer was paid for and not kept"
    with serving(echo) as server:
        rest = asked(endpoint(server), kept=found)
        assert sorted(found | rest) == list(range(6))
        assert not answered & set(server.questions)


def test_retry_after_is_heeded() -> None:
    with serving(only(Reply(status=429, headers={"Retry-After": "1"}), times=1, at="一")) as server:
        asked(endpoint(server), ["一"])
        first, second = (request.at for request in server.requests)
    assert second - first >= 1.0, "its own first pause is half a second"


def test_retries_are_shared_by_all_that_can_break() -> None:
    def respond(request: Request, before: int) -> Reply:
        return [Reply(status=500), Reply(raw=b"{"), Reply(status=500), echo(request, before)][
            before
        ]

    with serving(respond) as server:
        with pytest.raises(StepError, match="Error code: 500"):
            asked(endpoint(server, retries=2), ["一"])
        assert len(server.requests) == 3
    with serving(respond) as server:
        assert asked(endpoint(server, retries=3), ["一"])[0].text == "答一"


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        (400, "look at model, the longest answer, and extra"),
        (401, "name the key's variable in api_key_env"),
        (403, "name the key's variable in api_key_env"),
        (404, "look at base_url (mostly it ends in /v1) and model"),
        (307, "look at base_url"),
        (422, "look at model"),
    ],
)
def test_a_users_mistake_is_said_at_once(status: int, cure: str) -> None:
    reply = Reply("no such model", status=status, headers={"Location": "http://127.0.0.1:9/v1"})
    with serving(lambda request, before: reply) as server:
        with pytest.raises(UserError) as error:
            asked(endpoint(server, concurrency=1))
        assert error.value.exit_code == 2
        assert cure in str(error.value) and f": Error code: {status} - no" in str(error.value)
        assert "no such model" in str(error.value)
        assert len(server.requests) == 1, "neither tried again nor gone on with"


@pytest.mark.parametrize("status", [401, 500])
def test_what_is_under_way_when_one_fails_is_still_kept(status: int) -> None:
    def respond(request: Request, before: int) -> Reply:
        if request.question == QUESTIONS[0]:
            return Reply(status=status)
        return Reply("晚", seconds=0.4)

    found: dict[int, Answer] = {}
    with serving(respond) as server, pytest.raises((UserError, StepError), match=str(status)):
        for batch in EndpointAnswers(endpoint(server, retries=0)).answers(
            QUESTIONS, max_new_tokens=32
        ):
            found |= dict(batch)
    assert found == {1: Answer("晚", 5, True)}


def test_what_is_silent_when_one_fails_is_waited_for_once() -> None:
    def respond(request: Request, before: int) -> Reply:
        return Reply(status=401) if request.question == QUESTIONS[0] else Reply(seconds=60)

    with serving(respond) as server:
        started = time.monotonic()
        with pytest.raises(UserError, match="401"):
            asked(endpoint(server, timeout=0.5, retries=9))
        assert time.monotonic() - started < 10


def test_nobody_at_the_address() -> None:
    with serving(echo) as server:
        gone = endpoint(server)
    with pytest.raises(
        StepError, match=r"endpoint 'm' at http://127.0.0.1:\d+/v1 failed \(retries: 1\)"
    ):
        asked(gone, ["一"])


@pytest.mark.parametrize("status", [401, 500])
def test_the_key_is_in_no_message(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    echoing = Reply(f"bad\n\x1b[31m key {KEY} " + "x" * 999, status=status)
    with serving(lambda request, before: echoing) as server:
        to = endpoint(server, api_key_env="JUDGE_KEY", retries=0)
        with pytest.raises((UserError, StepError)) as error:
            asked(to)
    message = str(error.value)
    assert KEY not in message and "key …" in message
    assert message.isprintable() and len(message) < 500
    assert KEY not in repr(to) + str(to.model_dump())
    assert error.value.__cause__ is None and error.value.__suppress_context__


@pytest.mark.parametrize(
    ("value", "problem"), [(None, "is not set"), ("  ", "is not set"), ("a b", "more than a key")]
)
def test_a_missing_key_is_said_before_anything_else(
    value: str | None, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    with serving(echo) as server:
        with pytest.raises(ConfigError, match=f"JUDGE_KEY .*{problem}"):
            EndpointAnswers(endpoint(server, api_key_env="JUDGE_KEY"))
        assert not server.requests


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("base_url", f"https://me:{KEY}@host/v1", "base_url: expected no user, password"),
        ("base_url", f"https://host/v1?key={KEY}", "base_url: expected no user, password"),
        ("base_url", f"ftp://{KEY}", "base_url: expected an address such as http"),
        ("base_url", f"http://host:{KEY}/v1", "base_url: expected an address such as http"),
        ("base_url", f"http://host/v1 {KEY}", "base_url: expected an address such as http"),
        ("base_url", "http:///v1", "base_url: expected an address such as http"),
        ("base_url", "http://h/v1/chat/completions/", "without /chat/completions"),
        ("api_key_env", KEY, "api_key_env: expected the name of an environment variable"),
        ("api_key", KEY, "unknown key 'api_key'; did you mean 'api_key_env'?"),
        ("extra", {"messages": [KEY], "stream": True}, "extra: messages, stream cannot be set"),
        ("model", "", "model: string should have at least 1 character"),
        ("timeout", 0, "timeout: input should be greater than 0"),
        ("timeout", float("inf"), "timeout: input should be a finite number"),
        ("retries", -1, "retries: input should be greater than or equal to 0"),
        ("concurrency", 0, "concurrency: input should be greater than or equal to 1"),
    ],
)
def test_mistakes_in_the_yaml(key: str, value: Any, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "endpoint.yaml"
    file.write_text(yaml.safe_dump({"base_url": "http://h/v1", "model": "m", key: value}))
    with pytest.raises(ConfigError) as error:
        load(file, [], Endpoint)
    assert problem in str(error.value)
    assert KEY not in str(error.value)


def test_rough_tokens() -> None:
    assert rough_tokens("") == 0
    assert rough_tokens("饮酒以后") == 4
    assert rough_tokens("abcde 饮酒") == 2 + 2


ASKS = """
import sys
from medqa import cli
from medqa.compare.endpoint import Endpoint, EndpointAnswers

def main(argv):
    to = Endpoint(base_url=sys.argv[1], model="m", timeout=60, retries=9)
    for batch in EndpointAnswers(to).answers(["a", "b"], max_new_tokens=8):
        print(batch)

cli.run(main)
"""


@pytest.fixture
def silent() -> Iterator[tuple[ChatServer, threading.Event]]:
    heard = threading.Event()

    def respond(request: Request, before: int) -> Reply:
        heard.set()
        return Reply(seconds=60)

    with serving(respond) as server:
        yield server, heard


def test_ctrl_c_does_not_wait_for_a_silent_server(
    silent: tuple[ChatServer, threading.Event],
) -> None:
    server, heard = silent
    process = subprocess.Popen([sys.executable, "-c", ASKS, server.url], stderr=subprocess.PIPE)
    assert heard.wait(60)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - started < 10
    assert said == b"interrupted; run the same command again to go on\n"


def test_an_abandoned_run_leaves_nothing_open(silent: tuple[ChatServer, threading.Event]) -> None:
    server, _ = silent
    batches = EndpointAnswers(endpoint(server, timeout=60)).answers(["a"], max_new_tokens=8)
    closer = threading.Timer(0.2, server.ending.set)
    closer.start()
    next(batches)
    batches.close()
    closer.join()
