"""A real HTTP server on this machine that speaks OpenAI's chat completions, and fails on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What to do with one request; without changes it is answered well.

    Attributes:
        text: The message.
        finish: Its finish_reason.
        usage: Prompt and completion tokens; None leaves the count out.
        status: The HTTP status; from 300 on with an error as its body.
        headers: More headers.
        raw: The body itself, in place of a completion.
        content_type: Its type.
        promised: Content-Length, where the body is to be shorter than it says.
        seconds: How long to be silent first; the server's end cuts it short.
        hang_up: Close the connection without a word.
    """

    text: str | None = "好的。"
    finish: str | None = "stop"
    usage: tuple[int, int] | None = (10, 5)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    content_type: str = "application/json"
    promised: int | None = None
    seconds: float = 0.0
    hang_up: bool = False


@dataclass(frozen=True)
class Request:
    """What came in; the names of the headers in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float

    @property
    def question(self) -> str:
        """The last message."""
        content: str = self.body["messages"][-1]["content"]
        return content


Respond = Callable[[Request, int], Reply]


class ChatServer(ThreadingHTTPServer):
    """Notes every request, and answers as `respond` says.

    `respond` gets a request and how many with the same last message came before it.
    """

    daemon_threads = True
    request_queue_size = 64  # of connections not yet taken up; 5 would refuse some

    def __init__(self, respond: Respond) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.requests: list[Request] = []
        self.most_at_a_time = 0
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.under_way = 0

    @property
    def url(self) -> str:
        """What `base_url` must be."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def questions(self) -> list[str]:
        """The last message of every request so far."""
        with self.lock:
            return [request.question for request in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            body,
            time.monotonic(),
        )
        with server.lock:
            before = sum(one.question == request.question for one in server.requests)
            server.requests.append(request)
            server.under_way += 1
            server.most_at_a_time = max(server.most_at_a_time, server.under_way)
        try:
            reply = server.respond(request, before)
            server.ending.wait(reply.seconds)
        finally:
            # Before the answer goes out: the client may send its next at once.
            with server.lock:
                server.under_way -= 1
        self._send(reply, request)

    def _send(self, reply: Reply, request: Request) -> None:
        if reply.hang_up:
            self.close_connection = True
            self.connection.close()
            return
        data = reply.raw if reply.raw is not None else _completion(reply, request)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(reply.promised or len(data)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = reply.promised is not None

    def log_message(self, *_: Any) -> None:
        """Keeps quiet."""


def _completion(reply: Reply, request: Request) -> bytes:
    if reply.status >= 300:
        error = {"message": reply.text, "type": "server_error", "code": None}
        return json.dumps({"error": error}).encode()
    message = {"role": "assistant", "content": reply.text}
    found: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": request.body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
    }
    if reply.usage:
        read, wrote = reply.usage
        found["usage"] = {
            "prompt_tokens": read,
            "completion_tokens": wrote,
            "total_tokens": read + wrote,
        }
    return json.dumps(found, ensure_ascii=False).encode()


@contextmanager
def serving(respond: Respond) -> Iterator[ChatServer]:
    """Serves on a free port while the block runs."""
    with ChatServer(respond) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ending.set()
            server.shutdown()
            thread.join()
