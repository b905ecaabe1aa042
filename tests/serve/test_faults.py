"""A thousand malformed requests, a hundred clients that vanish, and a signal under load."""

import json
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.serve.parrot import Served, serving, until

SEED = 20240229
QUESTION = {"model": "parrot", "messages": [{"role": "user", "content": "感冒了多喝水有用吗"}]}
URGENT = {"model": "parrot", "messages": [{"role": "user", "content": "我爸突然胸口疼，一身冷汗"}]}


class Validated:
    """Sends what schemathesis made, and holds the response against the description."""

    def __init__(self, served: Served, statuses: Counter[int]) -> None:
        self._served, self._statuses = served, statuses
        self._session = requests.Session()
        self._session.trust_env = False

    def __call__(self, case: schemathesis.Case) -> None:
        response = case.call(base_url=self._served.url, session=self._session)
        self._statuses[response.status_code] += 1
        assert response.status_code < 500
        # What JSON Schema cannot say, such as that the last message is the user's, is refused too.
        case.validate_response(response, excluded_checks=[positive_data_acceptance])

    def __enter__(self) -> "Validated":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()


def by_every_line(schema: Any) -> Iterator[schemathesis.Case]:
    """What every line of the description allows and forbids."""
    for methods in schema.values():
        for operation in methods.values():
            for mode in GenerationMode:
                yield from schema.iter_coverage_cases(
                    operation=operation,
                    generation_modes=[mode],
                    generation_config=schema.config.generation,
                )


def by_chance(schema: Any, count: int, use: Callable[[schemathesis.Case], None]) -> None:
    """What hypothesis makes of the description, in the same order each time."""
    operation = schema["/v1/chat/completions"]["POST"]

    @settings(
        max_examples=count,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def each(case: schemathesis.Case) -> None:
        use(case)

    each()


def by_a_slip(count: int) -> Iterator[bytes]:
    """A good request with bytes lost, added, changed and doubled, and with other values."""
    chance = random.Random(SEED)
    good = json.dumps(QUESTION | {"max_tokens": 5, "temperature": 0.5, "stream": False}).encode()
    values = [None, True, -1, 1.5, 1e308, "", "\u0000", "<b>", [], {}, [[[]]], {"a": {}}, 10**18]
    for n in range(count):
        body = bytearray(good)
        at = chance.randrange(len(body))
        match n % 5:
            case 0:
                del body[at : at + chance.randint(1, 5)]
            case 1:
                body[at:at] = chance.randbytes(chance.randint(1, 4))
            case 2:
                body[at] ^= 1 << chance.randrange(8)
            case 3:
                body[at:at] = body[chance.randrange(len(body)) :]
            case 4:
                key = chance.choice(["model", "messages", "max_tokens", "stream", "x"])
                changed: dict[str, Any] = QUESTION | {key: chance.choice(values)}
                message: dict[str, Any] = {"role": "user", "content": "a"}
                message[chance.choice(["role", "content", "x"])] = chance.choice(values)
                changed["messages"] = chance.choice([[message], changed["messages"]])
                body = bytearray(json.dumps(changed).encode())
        yield bytes(body)


@pytest.mark.slow
def test_after_a_thousand_malformed_requests_the_next_is_served() -> None:
    statuses: Counter[int] = Counter()
    with serving() as served, Validated(served, statuses) as validated:
        schema = schemathesis.openapi.from_dict(served.client.get("/openapi.json").json())
        for case in by_every_line(schema):
            validated(case)
        assert statuses[200] > 5
        by_chance(schema, 25, validated)
        for body in by_a_slip(800):
            found = served.client.post(
                "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
            )
            statuses[found.status_code] += 1
            assert found.status_code in (200, 400, 404), (body, found.text)
            if found.status_code != 200:
                assert found.json()["error"]["message"]
        malformed = sum(n for status, n in statuses.items() if 400 <= status < 500)
        assert malformed >= 1000
        assert max(statuses) < 500
        found = served.client.post("/v1/chat/completions", json=QUESTION)
        assert found.status_code == 200
        until(lambda: served.traffic.under_way == 0)
        assert (served.traffic.running, served.parrot.running) == (0, 0)


def connect(port: int, sent: dict[str, Any]) -> socket.socket:
    data = json.dumps(sent).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        "Content-Type: application/json\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(head.encode() + data)
    return client


def test_a_hundred_clients_that_vanish_leave_no_running_generation() -> None:
    with serving(concurrency=40, queue=100) as served:
        served.parrot.free.clear()
        clients = [
            connect(served.port, (URGENT if n % 4 == 0 else QUESTION) | {"stream": n % 2 == 0})
            for n in range(100)
        ]
        until(lambda: (served.traffic.running, served.traffic.waiting) == (40, 60))
        for n, client in enumerate(clients):
            if n % 3 == 0:  # without a good-bye: a reset
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.close()
        until(lambda: served.traffic.under_way == 0)
        assert (served.traffic.running, served.traffic.waiting, served.parrot.running) == (0, 0, 0)
        served.parrot.free.set()
        assert served.client.post("/v1/chat/completions", json=QUESTION).status_code == 200


class Program:
    """The server as a process of its own, with the parrot in the model's place."""

    def __init__(self, root: Path, *changes: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.parrot", *changes],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = ""

    def wait(self) -> "Program":
        """Waits until it serves."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("serving "):
                self.url = line.split()[3]
                return self
        raise AssertionError(self.process.communicate())

    def listening(self) -> list[tuple[str, int]]:
        """Returns the addresses that it listens on."""
        connections = psutil.Process(self.process.pid).net_connections("inet")
        return [(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN]

    def end(self, seconds: float = 30.0) -> tuple[int, str, list[dict[str, Any]]]:
        """Returns exit code, what it said, and its journal."""
        out, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, [json.loads(line) for line in errors.splitlines()]


@pytest.fixture
def program(root: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    found = Program(root, *request.param)
    try:
        yield found if "loading=3600" in request.param else found.wait()
    finally:
        found.process.kill()
        found.process.communicate()


LOADED = ("pace=0.05", "concurrency=6", "queue=6", "guard=null")


@pytest.mark.slow
@pytest.mark.parametrize("program", [LOADED], indirect=True)
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_answer_that_was_taken_on(
    program: Program, sent: signal.Signals
) -> None:
    question = "一二三四五六七八九十" * 2
    body = {"model": "parrot", "messages": [{"role": "user", "content": question}]}

    def ask(n: int) -> tuple[int, str]:
        if n % 2:
            found = client.post("/v1/chat/completions", json=body)
            said = found.json()["choices"][0]["message"]["content"] if found.is_success else ""
            return found.status_code, said
        found = client.post("/v1/chat/completions", json=body | {"stream": True})
        events = [
            json.loads(line[6:]) for line in found.text.splitlines() if line.startswith("data: {")
        ]
        said = "".join(e["choices"][0]["delta"].get("content", "") for e in events)
        assert found.text.endswith("data: [DONE]\n\n")
        return found.status_code, said

    with (
        httpx.Client(base_url=program.url, timeout=30, trust_env=False) as client,
        ThreadPoolExecutor(12) as pool,
    ):
        asked = [pool.submit(ask, n) for n in range(12)]
        until(lambda: "medqa_waiting 6.0" in client.get("/metrics").text)
        program.process.send_signal(sent)
        until(lambda: client.get("/ready").status_code == 503)
        late = client.post("/v1/chat/completions", json=body)
        assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
        assert late.headers["retry-after"]
        assert client.get("/health").status_code == 200
        assert [one.result() for one in asked] == [(200, question)] * 12
    code, said, journal = program.end()
    assert code == 0
    assert said.endswith("stopped\n")
    chats = Counter(e["status"] for e in journal if e.get("path") == "/v1/chat/completions")
    assert chats == {200: 12, 503: 1}


@pytest.mark.slow
@pytest.mark.parametrize("program", [("pace=3600", "shutdown_timeout=0.2")], indirect=True)
def test_an_answer_that_does_not_end_is_told_so(program: Program) -> None:
    with (
        httpx.Client(base_url=program.url, timeout=30, trust_env=False) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        whole = pool.submit(client.post, "/v1/chat/completions", json=QUESTION)
        urgent = pool.submit(client.post, "/v1/chat/completions", json=URGENT | {"stream": True})
        until(lambda: "medqa_running 2.0" in client.get("/metrics").text)
        program.process.terminate()
        assert whole.result().status_code == 503
        assert whole.result().json()["error"]["code"] == "shutting_down"
        assert "120" in urgent.result().text
        assert '"code":"shutting_down"' in urgent.result().text
    assert program.end()[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("program", [("pace=3600", "shutdown_timeout=600")], indirect=True)
def test_a_second_signal_ends_it_at_once(program: Program) -> None:
    port = int(program.url.rpartition(":")[2])
    with connect(port, QUESTION), httpx.Client(base_url=program.url, trust_env=False) as client:
        until(lambda: "medqa_running 1.0" in client.get("/metrics").text)
        program.process.terminate()
        until(lambda: client.get("/ready").status_code == 503)
        program.process.terminate()
        assert program.end()[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("program", [()], indirect=True)
def test_it_listens_on_this_machine_alone(program: Program) -> None:
    assert [host for host, _ in program.listening()] == ["127.0.0.1"]


@pytest.mark.slow
@pytest.mark.parametrize("program", [("loading=3600",)], indirect=True)
def test_a_server_that_loads_can_be_ended(program: Program) -> None:
    until(program.listening, 60)
    ((host, port),) = program.listening()
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=60, trust_env=False) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
    program.process.terminate()
    code, said, _ = program.end()
    assert (code, said) == (0, "loading models/parrot\nstopped\n")
