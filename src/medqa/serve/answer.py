"""One answer on its way: notice, seat, the model's words, notices; as a stream or whole.

The order is what matters. A chat that wants an emergency notice gets it at once, before it waits
for a seat, and keeps it when the model then fails. Any other stream begins with the model's first
words, so that a full queue or a failure still has a status of its own.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from medqa.serve import framing
from medqa.serve.engine import Engine, GenerationError
from medqa.serve.guard import Notices
from medqa.serve.intake import Chat
from medqa.serve.journal import Entry, cause_of
from medqa.serve.protocol import Part
from medqa.serve.refusal import Refusal
from medqa.serve.traffic import Traffic
from medqa.serve.vllm_engine import VllmEngine

AnyEngine = Engine | VllmEngine

_EVENTS = "text/event-stream; charset=utf-8"
_AS_IT_COMES = (
    (b"x-accel-buffering", b"no"),
)  # nginx would gather a stream before it passes it on

GONE = 499
"""What nginx logs for a client that went away; nobody receives it."""


@dataclass(frozen=True)
class Asked:
    """All that an answer is made from.

    Attributes:
        chat: The request, within the limits.
        prompt: The chat in the model's tokens.
        notices: What the guard puts around the answer.
        entry: The request's line in the journal, which is filled in on the way.
    """

    chat: Chat
    prompt: list[int]
    notices: Notices
    entry: Entry


class Answer(Response):
    """The response to a chat; the model stops as soon as the client is gone."""

    def __init__(self, asked: Asked, engine: AnyEngine, traffic: Traffic) -> None:
        super().__init__()
        self._asked = asked
        self._engine = engine
        self._traffic = traffic
        self._tokens = 0
        self._finish = "stop"
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or raises the Refusal of an answer that has not begun."""
        asked = self._asked
        out = _Out(send)
        streaming = bool(asked.chat.request.stream)
        try:
            async with self._traffic.request():
                work = self._stream(out) if streaming else self._at_once(out)
                await _while_there(receive, work, out)
        except _GoneError:
            asked.entry.status = GONE
        except Refusal as refusal:
            asked.entry.error = refusal.code
            if not out.begun:
                refusal.parts = framing.before(asked.notices)
                raise
            if streaming and not out.ended:
                await out.last(_event(orjson.dumps(refusal.body)))
        finally:
            asked.entry.completion_tokens = self._tokens

    async def _at_once(self, out: "_Out") -> None:
        """Sends the answer as one JSON object."""
        parts: framing.Parts = []
        async with aclosing(self._spoken()) as spoken:
            async for part, text in spoken:
                if parts and parts[-1][0] == part == "answer":
                    text = parts.pop()[1] + text
                parts.append((part, text))
        content = "".join(text for _, text in parts)
        self._note(content)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": content},
            "finish_reason": self._finish,
        }
        body = self._head("chat.completion") | {
            "choices": [choice],
            "usage": self._usage(),
            "medqa": framing.labelled(parts),
        }
        data = orjson.dumps(body)
        await out.begin("application/json", (b"content-length", str(len(data)).encode()))
        await out.last(data)

    async def _stream(self, out: "_Out") -> None:
        """Sends the answer as server-sent events."""
        # Most of a chunk is the same in all: it is made once, and a token costs only its text.
        head = orjson.dumps(self._head("chat.completion.chunk"))[:-1]
        role, said, part = b'"role":"assistant",', [], "answer"
        async with aclosing(self._spoken()) as spoken:
            async for part, text in spoken:
                if not out.begun:
                    await out.begin(_EVENTS, *_AS_IT_COMES)
                delta = b"{" + role + b'"content":' + orjson.dumps(text) + b"}"
                await out.send(_event(_chunk(head, delta, b"null", part)))
                role = b""
                if self._asked.entry.text is not None:
                    said.append(text)
        self._note("".join(said))
        if not out.begun:  # nobody had anything to say
            await out.begin(_EVENTS, *_AS_IT_COMES)
        delta = b"{" + role.rstrip(b",") + b"}"
        end = _event(_chunk(head, delta, orjson.dumps(self._finish), part))
        if self._asked.chat.request.include_usage:
            usage = {"choices": [], "usage": self._usage(), "medqa": {"part": part}}
            end += _event(head + b"," + orjson.dumps(usage)[1:])
        await out.last(end + b"data: [DONE]\n\n")

    async def _spoken(self) -> AsyncGenerator[tuple[Part, str], None]:
        """Yields the parts in order, the model's words as they come."""
        asked = self._asked
        for one in framing.before(asked.notices):
            yield one
        try:
            async with self._traffic.seat(), aclosing(self._pieces()) as pieces:
                async for text in pieces:
                    yield "answer", text
        except Refusal:
            raise
        except GenerationError as error:
            asked.entry.cause = cause_of(error)
            raise Refusal(500, "the model failed; ask again", code="generation_failed") from None
        except Exception as error:
            asked.entry.cause = cause_of(error)
            raise Refusal(500, "the server failed; its log says where", code="internal") from None
        for one in framing.after(asked.notices):
            yield one

    async def _pieces(self) -> AsyncGenerator[str, None]:
        asked, request = self._asked, self._asked.chat.request
        pieces = self._engine.answer(
            asked.chat.side,
            asked.prompt,
            max_new_tokens=asked.chat.max_new_tokens,
            temperature=request.temperature or 0.0,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=request.seed,
        )
        async with aclosing(pieces):
            async for piece in pieces:
                self._tokens = piece.tokens
                self._finish = piece.finish_reason or self._finish
                if piece.text:
                    if asked.entry.first_token is None:
                        asked.entry.first_token = asked.entry.elapsed()
                    yield piece.text

    def _head(self, kind: str) -> dict[str, Any]:
        asked = self._asked
        return {
            "id": asked.entry.id,
            "object": kind,
            "created": self._created,
            "model": asked.chat.request.model,
        }

    def _usage(self) -> dict[str, int]:
        read, wrote = len(self._asked.prompt), self._tokens
        return {
            "prompt_tokens": read,
            "completion_tokens": wrote,
            "total_tokens": read + wrote,
        }

    def _note(self, content: str) -> None:
        if self._asked.entry.text is not None:
            self._asked.entry.text["answer"] = content


class _Out:
    """A response on its way out.

    Attributes:
        begun: Its status has been sent.
        ended: Its last bytes have been, or are being, sent.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.ended = False

    async def begin(self, kind: str, *headers: tuple[bytes, bytes]) -> None:
        """Sends status 200 and the headers."""
        self.begun = True
        kept = [(b"content-type", kind.encode()), (b"cache-control", b"no-store"), *headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": kept})

    async def send(self, data: bytes) -> None:
        """Sends a part; waits while the client is behind."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def last(self, data: bytes) -> None:
        """Sends the last part."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


class _GoneError(Exception):
    """The client went away."""


async def _while_there(receive: Receive, work: Coroutine[Any, Any, None], out: _Out) -> None:
    """Runs `work`; stops it and raises _GoneError when the client goes away before its end."""
    doing, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((doing, gone), return_when=asyncio.FIRST_COMPLETED)
        # The end of the response is told in the same way as the client's.
        if not doing.done() and not out.ended:
            raise _GoneError
        await doing
    finally:
        for task in (doing, gone):
            task.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _chunk(head: bytes, delta: bytes, finish: bytes, part: str) -> bytes:
    return (
        head
        + b',"choices":[{"index":0,"delta":'
        + delta
        + b',"finish_reason":'
        + finish
        + b'}],"medqa":{"part":"'
        + part.encode()
        + b'"}}'
    )


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
