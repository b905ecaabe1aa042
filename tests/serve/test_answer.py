"""One answer: its parts, streamed and whole, when it fails and when nobody waits for it."""

import asyncio
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from tests.serve.parrot import Served, serving, until

ORDINARY = "感冒了多喝水有用吗"
URGENT = "我爸突然胸口疼，一身冷汗"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


@pytest.fixture(autouse=True)
def _unharmed(served: Served) -> Iterator[None]:
    yield
    served.parrot.free.set()
    served.parrot.fails = None
    until(lambda: served.traffic.under_way == 0)
    assert (served.traffic.running, served.traffic.waiting, served.parrot.running) == (0, 0, 0)


def body(question: str, **changes: Any) -> dict[str, Any]:
    return {"model": "parrot", "messages": [{"role": "user", "content": question}]} | changes


def ask(served: Served, question: str, **changes: Any) -> httpx.Response:
    return served.client.post("/v1/chat/completions", json=body(question, **changes))


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def content(found: list[dict[str, Any]]) -> str:
    return "".join(c["delta"].get("content", "") for event in found for c in event["choices"])


@pytest.mark.parametrize("question", [ORDINARY, URGENT])
def test_a_stream_and_a_whole_answer_say_the_same(served: Served, question: str) -> None:
    whole = ask(served, question).json()
    streamed = ask(served, question, stream=True, stream_options={"include_usage": True})
    found = events(streamed)
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert content(found) == whole["choices"][0]["message"]["content"]
    parts = whole["medqa"]["parts"]
    assert "".join(part["text"] for part in parts) == content(found)
    for part in parts:
        said = [e for e in found if e["medqa"]["part"] == part["part"]]
        assert content(said) == part["text"]
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    tokens = {"prompt_tokens": len(question) + 6, "completion_tokens": len(question) + 1}
    assert whole["usage"].items() >= tokens.items()
    assert found[-1]["usage"] == whole["usage"]
    assert {event["id"] for event in found} == {streamed.headers["x-request-id"]}


def test_parts_stand_in_order(served: Served) -> None:
    parts = ask(served, URGENT).json()["medqa"]["parts"]
    assert [part["part"] for part in parts] == ["emergency", "answer", "disclaimer"]
    assert "120" in parts[0]["text"]
    assert parts[0]["text"].endswith("\n\n")
    assert parts[1]["text"] == URGENT
    assert parts[2]["text"].startswith("\n\n")


def test_the_longest_answer_is_heeded(served: Served) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        found = ask(served, ORDINARY, **{name: 3}).json()
        assert found["choices"][0]["finish_reason"] == "length"
        assert found["usage"]["completion_tokens"] == 3
        assert found["medqa"]["parts"][0]["text"] == ORDINARY[:3]


def test_the_base_is_asked_by_its_name(served: Served) -> None:
    found = ask(served, ORDINARY, model="parrot-base").json()
    assert found["medqa"]["parts"][0]["text"] == ORDINARY * 2


def test_an_emergency_notice_is_there_before_the_first_token(served: Served) -> None:
    served.parrot.free.clear()
    sent = body(URGENT, stream=True)
    with served.client.stream("POST", "/v1/chat/completions", json=sent) as response:
        first = next(line for line in response.iter_lines() if line)
        assert json.loads(first.removeprefix("data: "))["medqa"]["part"] == "emergency"
        assert not served.parrot.free.is_set()


def test_an_emergency_notice_does_not_wait_for_a_seat(served: Served) -> None:
    served.parrot.free.clear()
    settings = served.settings
    with ThreadPoolExecutor(16) as pool:
        filling = [
            pool.submit(ask, served, ORDINARY) for _ in range(settings.concurrency + settings.queue)
        ]
        until(lambda: served.traffic.waiting == settings.queue)
        streamed = ask(served, URGENT, stream=True)
        whole = ask(served, URGENT)
        served.parrot.free.set()
        assert {one.result().status_code for one in filling} == {200}
    *before, last = events(streamed)
    assert "120" in content(before)
    assert last["error"]["code"] == "queue_full"
    assert whole.status_code == 503
    assert whole.json()["medqa"]["parts"][0]["part"] == "emergency"
    assert whole.json()["error"]["message"].startswith(whole.json()["medqa"]["parts"][0]["text"])


@pytest.mark.parametrize("fails", [0, 2])
def test_a_failing_model_is_told_and_the_next_request_is_served(served: Served, fails: int) -> None:
    served.parrot.fails = fails
    whole, streamed = ask(served, ORDINARY), ask(served, ORDINARY, stream=True)
    urgent = ask(served, URGENT, stream=True)
    assert whole.status_code == 500
    assert whole.json()["error"]["code"] == "generation_failed"
    assert "dead" not in whole.text
    if fails:
        assert events(streamed)[-1]["error"]["code"] == "generation_failed"
        assert "[DONE]" not in streamed.text
    else:
        assert streamed.status_code == 500
    assert "120" in content(events(urgent)[:1])
    assert events(urgent)[-1]["error"]["type"] == "server_error"
    served.parrot.fails = None
    assert ask(served, ORDINARY).status_code == 200


def test_an_unexpected_error_tells_nothing_of_itself(served: Served) -> None:
    served.parrot.fails, served.parrot.failure = 0, ValueError(f"cannot say {ORDINARY}")
    found = ask(served, ORDINARY)
    assert found.status_code == 500
    assert found.json()["error"]["code"] == "internal"
    assert ORDINARY not in found.text


def test_what_a_client_sends_back_reaches_the_model_without_notices(served: Served) -> None:
    said = ask(served, URGENT).json()["choices"][0]["message"]["content"]
    chat = [
        {"role": "user", "content": URGENT},
        {"role": "assistant", "content": said},
        {"role": "user", "content": ORDINARY},
    ]
    assert ask(served, "", messages=chat).status_code == 200
    assert served.parrot.heard[-1] == f"<user>{URGENT}<assistant>{URGENT}<user>{ORDINARY}"


def test_the_queue_is_bounded_and_says_when_to_come_again(served: Served) -> None:
    served.parrot.free.clear()
    places = served.settings.concurrency + served.settings.queue
    with ThreadPoolExecutor(places) as pool:
        taken = [pool.submit(ask, served, ORDINARY, stream=n % 2 > 0) for n in range(places)]
        until(lambda: served.traffic.waiting == served.settings.queue)
        for stream in (False, True):
            full = ask(served, ORDINARY, stream=stream)
            assert full.status_code == 503
            assert full.json()["error"]["code"] == "queue_full"
            assert 1 <= int(full.headers["retry-after"]) <= 60
        assert served.parrot.running == served.settings.concurrency
        served.parrot.free.set()
        assert [one.result().status_code for one in taken] == [200] * places


def test_an_answer_that_takes_too_long_ends() -> None:
    with serving(request_timeout=0.2) as served:
        served.parrot.free.clear()
        whole = ask(served, ORDINARY)
        urgent = ask(served, URGENT, stream=True)
        assert whole.status_code == 504
        assert whole.json()["error"]["code"] == "timeout"
        assert events(urgent)[-1]["error"]["code"] == "timeout"
        until(lambda: served.parrot.running == 0)


def connect(served: Served, sent: dict[str, Any]) -> socket.socket:
    data = json.dumps(sent).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n"
        "Content-Type: application/json\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", served.port), timeout=10)
    client.sendall(head.encode() + data)
    return client


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_vanish_stop_the_model_and_leave_the_queue(
    served: Served, stream: bool
) -> None:
    served.parrot.free.clear()
    places = served.settings.concurrency + served.settings.queue
    clients = [connect(served, body(ORDINARY, stream=stream)) for _ in range(places)]
    until(lambda: served.traffic.waiting == served.settings.queue)
    for client in clients:
        client.close()
    until(lambda: served.traffic.under_way == 0)
    assert served.parrot.running == 0
    assert not served.parrot.free.is_set()


def test_a_client_that_vanishes_in_the_middle_stops_the_model(served: Served) -> None:
    client = connect(served, body(URGENT, stream=True))
    served.parrot.free.clear()
    assert client.recv(100)
    client.close()
    until(lambda: served.parrot.running == 0)


def test_the_official_client_understands_all_of_it(served: Served) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        names = [model.id for model in client.models.list()]
        assert names == ["parrot", "parrot-base"]
        assert client.models.retrieve("parrot-base").id == "parrot-base"
        chat: Any = [{"role": "user", "content": URGENT}]
        whole = client.chat.completions.create(model="parrot", messages=chat)
        said = whole.choices[0].message.content
        assert said
        assert whole.usage
        # An answer goes back as the client has it.
        chat += [whole.choices[0].message.model_dump(), {"role": "user", "content": ORDINARY}]
        with client.chat.completions.create(
            model="parrot", messages=chat, stream=True, stream_options={"include_usage": True}
        ) as stream:
            chunks = list(stream)
        assert ORDINARY in "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
        assert chunks[-1].usage
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt", messages=chat)
        with pytest.raises(openai.BadRequestError, match="tools"):
            client.chat.completions.create(model="parrot", messages=chat, tools=[])
        served.parrot.fails = 0
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="parrot", messages=chat)
        urgent: Any = [{"role": "user", "content": URGENT}]
        with (
            client.chat.completions.create(model="parrot", messages=urgent, stream=True) as stream,
            pytest.raises(openai.APIError, match="failed"),
        ):
            list(stream)


def test_the_official_client_understands_it_without_waiting_too(served: Served) -> None:
    async def talk() -> list[str]:
        url = f"{served.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def one(n: int) -> str:
                chat: Any = [{"role": "user", "content": f"问题{n}"}]
                if n % 2:
                    whole = await client.chat.completions.create(model="parrot", messages=chat)
                    return whole.choices[0].message.content or ""
                stream = await client.chat.completions.create(
                    model="parrot", messages=chat, stream=True
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream])

            return await asyncio.gather(*[one(n) for n in range(8)])

    for n, said in enumerate(asyncio.run(talk())):
        assert said.startswith(f"问题{n}\n\n")
