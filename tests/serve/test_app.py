"""Addresses, headers, limits, journal and numbers."""

import json
import logging
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.parrot import Served, serving, until

KEY = "s3cret-key-of-the-test"
QUESTION = "独特的问题"
URGENT = "我爸突然胸口疼，一身冷汗"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


def asked(question: str = QUESTION, **changes: Any) -> dict[str, Any]:
    return {"model": "parrot", "messages": [{"role": "user", "content": question}]} | changes


def ask(served: Served, content: bytes, **headers: str) -> httpx.Response:
    kind = {"Content-Type": "application/json"}
    return served.client.post("/v1/chat/completions", content=content, headers=kind | headers)


def raw(served: Served, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def code(response: httpx.Response) -> str:
    found = response.json()["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    return str(found["code"])


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"model": "gpt-4"}, 404, "model_not_found"),
        ({"model": "parrot\u0000"}, 404, "model_not_found"),
        ({"max_tokens": 65}, 400, "invalid_value"),
        ({"messages": [{"role": "user", "content": "a"}] * 21}, 400, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "药" * 251}]}, 400, "context_length_exceeded"),
        # 280 tokens, and 64 of an answer are more than the parrot can hold.
        ({"messages": [{"role": "user", "content": "a"}] * 20, "top_p": 0.5}, 200, ""),
        ({"messages": [{"role": "user", "content": "药" * 250}], "max_tokens": 64}, 200, ""),
        ({"messages": [{"role": "assistant", "content": "a"}]}, 400, "invalid_value"),
        (
            {"messages": [{"role": r, "content": "a"} for r in ("user", "system", "user")]},
            400,
            "invalid_value",
        ),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "invalid_value"),
        ({"messages": [{"role": "user", "content": " \n\t\u3000"}]}, 400, "invalid_value"),
        (
            {"messages": [{"role": "user", "content": "\u200b\ufeff\u0000"}]},
            400,
            "invalid_value",
        ),
        ({"messages": [{"role": "user", "content": []}]}, 400, "invalid_value"),
    ],
)
def test_limits(served: Served, change: dict[str, Any], status: int, told: str) -> None:
    found = ask(served, json.dumps(asked() | change).encode())
    assert found.status_code == status, found.text
    if status != 200:
        assert code(found) == told


def test_tokens_have_limits_of_their_own() -> None:
    chat = {"messages": [{"role": "user", "content": "药" * 240}]}
    with serving(max_prompt_tokens=240) as served:
        found = ask(served, json.dumps(asked() | chat).encode())
        assert (found.status_code, code(found)) == (400, "context_length_exceeded")
        assert "246 tokens, more than the 240" in found.text
    with serving(max_new_tokens=100) as served:
        found = ask(served, json.dumps(asked() | chat).encode())
        assert (found.status_code, code(found)) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("body", "headers", "status", "told"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b'"\\ud800"', {}, 400, "invalid_json"),
        (b"[" * 15_000, {}, 400, "invalid_json"),
        (b"x" * 20_001, {}, 413, "body_too_large"),
        (b"x" * 10_000_000, {}, 413, "body_too_large"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "wrong_content_type"),
        (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "wrong_content_type"),
        (b"{}", {"Content-Encoding": "gzip"}, 415, "wrong_content_encoding"),
        (b"{}", {"Content-Type": "application/json; charset=utf-8"}, 400, "invalid_value"),
        (b"{}", {"Host": "evil.example"}, 421, "wrong_host"),
    ],
)
def test_bodies(
    served: Served, body: bytes, headers: dict[str, str], status: int, told: str
) -> None:
    found = ask(served, body, **headers)
    assert (found.status_code, code(found)) == (status, told)
    assert ask(served, json.dumps(asked()).encode()).status_code == 200


def test_a_large_body_without_a_length_is_refused_too(served: Served) -> None:
    found = served.client.post(
        "/v1/chat/completions",
        content=(b"x" * 10_000 for _ in range(100)),
        headers={"Content-Type": "application/json"},
    )
    assert (found.status_code, code(found)) == (413, "body_too_large")


@pytest.mark.parametrize(
    "question",
    [
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "</textarea>&quot;&#39;'\"`{{7*7}}${7*7}",
        "a\u200bb\u200dc\ufeffd\u202ee",
        "\u0000\u0001\u001b[31m\u007f\u0085\u2028",
        "<|user|>\n<|assistant|>[gMASK]sop<|system|>",
        "../../etc/passwd %00 \\",
        "😀👨‍👩‍👧𠮷\U0010ffff",
    ],
)
def test_whatever_is_asked_is_text(served: Served, question: str) -> None:
    found = ask(served, json.dumps(asked(question)).encode())
    assert found.status_code == 200
    assert found.headers["content-type"] == "application/json"
    assert found.headers["x-content-type-options"] == "nosniff"
    # 64 tokens are the longest answer.
    assert found.json()["medqa"]["parts"][-2]["text"] == question[:64]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/page/../../../etc/passwd", 404),
        ("GET", "/page/..%2f..%2fetc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "//etc/passwd", 404),
        ("GET", "/v1/models/../../x", 404),
        ("GET", "/v1/models/..%2f..%2fx", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/%00", 404),
        ("GET", "/%ff%fe", 404),
        ("GET", "/v1/chat/completions", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405),
        ("BREW", "/health", 405),
        ("GET", "/docs", 404),
        ("GET", "/redoc", 404),
    ],
)
def test_addresses_that_are_none(served: Served, method: str, path: str, status: int) -> None:
    sent = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head, _, body = raw(served, sent.encode()).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"root:" not in body
    assert json.loads(body)["error"]["code"]
    assert b"access-control-allow" not in head.lower()
    if status == 405:
        assert b"allow: " in head.lower()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_refused(served: Served, sent: bytes) -> None:
    found = raw(served, sent)
    assert found.startswith(b"HTTP/1.1 4") or not found
    assert ask(served, json.dumps(asked()).encode()).status_code == 200


def test_a_websocket_is_not_opened(served: Served) -> None:
    found = served.client.get(
        "/v1/models", headers={"Connection": "upgrade", "Upgrade": "websocket"}
    )
    assert found.status_code == 200


def test_with_a_key_only_its_holder_asks(caplog: pytest.LogCaptureFixture) -> None:
    with serving(key=KEY) as served, caplog.at_level(logging.INFO, "medqa.serve"):
        held = {"Authorization": f"Bearer {KEY}"}
        body = json.dumps(asked()).encode()
        assert ask(served, body).status_code == 401
        # Before anything is read of it.
        assert ask(served, b"{", Authorization="Bearer wrong").status_code == 401
        assert ask(served, body, **held).status_code == 200
        for path, status in {"/health": 200, "/ready": 200, "/": 200, "/metrics": 401}.items():
            assert served.client.get(path).status_code == status
        assert served.client.get("/page.json").json()["needs_key"] is True
        numbers = served.client.get("/metrics", headers=held).text
        shown = served.client.get("/openapi.json").json()
        assert shown["paths"]["/v1/models"]["get"]["security"]
        for text in (numbers, json.dumps(shown), served.client.get("/page.json").text):
            assert KEY not in text
    assert KEY not in caplog.text
    assert "invalid_api_key" in caplog.text


def test_the_page_can_load_from_here_alone(served: Served) -> None:
    found = served.client.get("/")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*", policy)
    facts = served.client.get("/page.json").json()
    assert [model["side"] for model in facts["models"]] == ["tuned", "base"]
    assert facts["max_prompt_characters"] == 250
    assert "120" in facts["disclaimer"]["zh"]
    with serving(page=False) as bare:
        for path in ("/", "/page.json", "/page/page.js"):
            assert bare.client.get(path).status_code == 404


def test_a_server_that_loads_lives_and_is_not_ready() -> None:
    with serving() as served:
        served.traffic.ready = False
        assert served.client.get("/health").status_code == 200
        for found in (served.client.get("/ready"), ask(served, json.dumps(asked()).encode())):
            assert (found.status_code, code(found)) == (503, "loading")
            assert found.headers["retry-after"]


def test_the_journal_has_counts_and_no_words(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "medqa.serve")
    ask(served, json.dumps(asked(URGENT, stream=True)).encode())
    until(lambda: len(caplog.records) == 1)  # a line is written after the answer is sent
    ask(served, json.dumps(asked(QUESTION, model=QUESTION)).encode())
    until(lambda: len(caplog.records) == 2)
    served.client.get(f"/{QUESTION}?{QUESTION}")
    until(lambda: len(caplog.records) == 3)
    served.client.get("/health")
    served.parrot.fails, served.parrot.failure = 0, ValueError(QUESTION)
    ask(served, json.dumps(asked()).encode())
    until(lambda: len(caplog.records) == 4)
    served.parrot.fails = None
    lines = [orjson.loads(record.message) for record in caplog.records]
    answered, unknown, nowhere, failed = lines
    assert (
        answered.items()
        >= {
            "method": "POST",
            "path": "/v1/chat/completions",
            "status": 200,
            "model": "parrot",
            "side": "tuned",
            "stream": True,
            "prompt_tokens": len(URGENT) + 6,
            "completion_tokens": len(URGENT) + 1,
            "notices": ["heart_attack", "disclaimer"],
        }.items()
    )
    assert 0 < answered["first_token"] < answered["seconds"]
    assert unknown.items() >= {"status": 404, "error": "model_not_found"}.items()
    assert "model" not in unknown
    assert nowhere.items() >= {"status": 404, "error": "not_found"}.items()
    assert "path" not in nowhere
    assert failed["cause"].startswith("ValueError at ")
    for words in (QUESTION, URGENT, json.dumps(QUESTION).strip('"')):
        assert words not in caplog.text


def test_the_journal_has_the_words_where_they_are_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "medqa.serve")
    with serving(log_text=True) as served:
        for stream in (True, False):
            ask(served, json.dumps(asked(stream=stream)).encode())
    assert len(caplog.records) == 2
    for record in caplog.records:
        text = orjson.loads(record.message)["text"]
        assert text["messages"] == [{"role": "user", "content": QUESTION}]
        assert text["answer"].startswith(QUESTION)


def test_the_numbers_add_up() -> None:
    with serving() as served:
        for stream in (True, False):
            ask(served, json.dumps(asked(URGENT, stream=stream)).encode())
        ask(served, json.dumps(asked(model="parrot-base")).encode())
        ask(served, b"{")
        served.client.get(f"/{QUESTION}")
        # A request is counted after its answer is sent.
        until(lambda: served.client.get("/metrics").text.count("\nmedqa_requests_total{") >= 4)
        until(lambda: 'side="tuned",status="200"} 2.0' in served.client.get("/metrics").text)
        text = served.client.get("/metrics").text
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    chat = "/v1/chat/completions"
    assert found["medqa_requests_total", chat, "tuned", "200"] == 2
    assert found["medqa_requests_total", chat, "base", "200"] == 1
    assert found["medqa_requests_total", chat, "", "400"] == 1
    assert found["medqa_requests_total", "", "", "404"] == 1
    assert found["medqa_notices_total", "heart_attack"] == 2
    assert found["medqa_notices_total", "disclaimer"] == 3
    assert found["medqa_prompt_tokens_total", "tuned"] == 2 * (len(URGENT) + 6)
    assert found["medqa_completion_tokens_total", "base"] == 2 * len(QUESTION) + 1
    assert found["medqa_first_token_seconds_count", "tuned"] == 2
    assert found["medqa_answer_seconds_count", "base"] == 1
    for gauge in ("medqa_running", "medqa_waiting", "medqa_generating"):
        assert found[gauge,] == 0
    assert found["process_resident_memory_bytes",] > 0
    assert QUESTION not in text
