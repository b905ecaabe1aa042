"""Clients that do not speak, and clients that do not listen."""

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.serve.parrot import Served, serving

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch, serving() as found:
        patch.setattr("medqa.serve.connection.HEAD_SECONDS", 0.2)
        yield found


def is_cut(client: socket.socket) -> bool:
    """Waits for the server to hang up."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    ("before", "said"), [(b"", b""), (b"", b"G"), (b"", GET[:30]), (GET, GET[:30])]
)
def test_half_a_head_is_not_waited_for_for_ever(served: Served, before: bytes, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        if before:
            client.sendall(before)
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(said)
        assert is_cut(client)


def test_a_head_that_dribbles_in_is_cut_too(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=0.01) as client:
        end = time.monotonic() + 10
        for byte in GET[:20] * 100:
            try:
                client.sendall(bytes([byte]))
                if is_cut(client):
                    return
            except (BrokenPipeError, ConnectionResetError):
                return
            assert time.monotonic() < end


def test_half_a_body_is_not_waited_for_for_ever(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medqa.serve.intake.BODY_SECONDS", 0.2)
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(head)
        found = b"".join(iter(lambda: client.recv(65536), b""))
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b'"slow_body"' in found
    # And one that goes away before its end.
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(head)
    assert served.client.get("/health").status_code == 200


def test_an_answer_may_take_longer(served: Served) -> None:
    served.parrot.free.clear()
    threading.Timer(0.5, served.parrot.free.set).start()
    question = {"model": "parrot", "messages": [{"role": "user", "content": "问"}]}
    found = served.client.post("/v1/chat/completions", json=question)
    assert found.status_code == 200
    assert found.elapsed.total_seconds() > 0.4


def test_a_client_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medqa.serve.connection.UNREAD_SECONDS", 0.2)
    many = 40_000  # characters; some 9 MB of events, more than the system's buffers hold
    limits = {
        "max_new_tokens": many,
        "max_prompt_tokens": many + 100,
        "max_prompt_characters": many,
        "max_body_bytes": 4 * many,
    }
    with serving(guard=None, **limits) as served:
        served.parrot.room = 3 * many
        question = {"model": "parrot", "messages": [{"role": "user", "content": "x" * many}]}
        data = json.dumps(question | {"stream": True}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            client.connect(("127.0.0.1", served.port))
            client.sendall(head.encode() + data)
            end = time.monotonic() + 20
            while not served.parrot.heard or served.parrot.running:
                assert time.monotonic() < end
                time.sleep(0.01)
            assert is_cut(client)
        assert served.parrot.spoken < many
        assert served.client.get("/health").status_code == 200
