"""The real page on an API that answers by script: what a question says, happens to its answer."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from medqa.serve import page

MODELS = {"medqa-test": "tuned", "medqa-test-base": "base"}
EMERGENCY = "您描述的情况可能危及生命，请立即拨打 120，不要等待。"
DOSE = "用药和剂量请遵医嘱。"
DISCLAIMER = page.DISCLAIMER["zh"]
KEY = "open-sesame"


@dataclass
class Standin:
    """The server and what it saw."""

    app: FastAPI
    requests: list[dict[str, Any]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """A client went away in the middle of an answer."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """Lets an answer to 滔滔 go on."""
    address: str = ""


def _reply(body: dict[str, Any]) -> list[tuple[str, str]]:
    """The parts of an answer, in pieces as a model would send them."""
    question = body["messages"][-1]["content"]
    said = f"{body['model']}对「{question}」的回答。"
    answer = [("answer", said[i : i + 3]) for i in range(0, len(said), 3)]
    before = [("emergency", EMERGENCY + "\n\n")] if "胸痛" in question else []
    after = [("dose", f"\n\n{DOSE}")] if "吃多少" in question else []
    return [*before, *answer, *after, ("disclaimer", f"\n\n{DISCLAIMER}")]


def _event(part: str, text: str, reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    # sse-starlette ends its lines in both characters, others in one.
    return f"data: {json.dumps({'choices': [choice], 'medqa': {'part': part}})}\r\n\r\n"


async def _stream(standin: Standin, body: dict[str, Any]) -> AsyncIterator[str]:
    question = body["messages"][-1]["content"]
    tuned = not body["model"].endswith("-base")
    try:
        yield ": a comment\r\n\r\n"
        for part, text in _reply(body):
            yield _event(part, text)
            await asyncio.sleep(0.002)
            if part == "answer" and "滔滔" in question:
                for line in range(120):
                    yield _event("answer", f"{line}\n")
                    while line == 60 and not standin.go_on.is_set():
                        await asyncio.sleep(0.01)
            if part == "answer" and "没完" in question:
                await asyncio.sleep(3600)  # until the client goes
            if part == "answer" and "断线" in question and tuned:
                raise ConnectionError
            if part == "answer" and "故障" in question:
                yield f"data: {json.dumps({'error': {'message': 'out of memory'}})}\r\n\r\n"
                return
        if "无尾" not in question:
            yield _event("answer", "", "length" if "很长" in question else "stop")
            yield 'data: {"choices": [], "usage": {}}\r\n\r\n'
            yield "data: [DONE]\r\n\r\n"
    except asyncio.CancelledError:
        standin.left.set()
        raise


def _refused(status: int, message: str, code: str = "x", **headers: str) -> JSONResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    notice = {"parts": [{"part": "emergency", "text": EMERGENCY}]}
    body = {"error": {"message": message, "code": code}, "medqa": notice}
    if "胸痛" not in message:
        del body["medqa"]
    return JSONResponse(body, status, headers=names)


def standin(**facts: Any) -> Standin:
    """A server that is not started yet; `facts` change what ``/page.json`` says."""
    app = FastAPI()
    made = Standin(app)
    given = {"max_prompt_characters": 200, "max_messages": 7, "needs_key": False}
    about = page.about(facts.pop("models", MODELS), **(given | facts))
    app.include_router(page.router(about))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        body = await request.json()
        made.requests.append(body)
        question = body["messages"][-1]["content"]
        if about["needs_key"] and request.headers.get("authorization") != f"Bearer {KEY}":
            return _refused(401, "no key")
        if "正忙" in question:
            return _refused(503, question, "queue_full", Retry_After="7")
        if "短" in question and len(body["messages"]) > 3:
            return _refused(400, "too many tokens", "context_length_exceeded")
        if "太大" in question:
            return _refused(413, "body too large")
        if "不收" in question:
            return _refused(400, "messages: too many")
        return StreamingResponse(_stream(made, body), media_type="text/event-stream")

    return made


@contextmanager
def served(made: Standin) -> Iterator[Standin]:
    """Runs it on a free port of this machine."""
    config = uvicorn.Config(
        made.app, host="127.0.0.1", port=0, log_level="critical", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    made.address = f"http://127.0.0.1:{port}/"
    try:
        yield made
    finally:
        server.should_exit = server.force_exit = True
        thread.join(timeout=10)
