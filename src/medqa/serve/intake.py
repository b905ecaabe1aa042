"""From a request's bytes to a checked chat; every limit of the YAML but those on the crowd."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from medqa.serve.protocol import ChatRequest, Message, read_request
from medqa.serve.refusal import Refusal, bad_request
from medqa.serve.settings import Settings, Side

BODY_SECONDS = 20.0
"""How long a client may take to send a body."""

_DISCARDED = 64 * 2**20
"""Bytes of a body that are read only to be dropped: a client that is cut off while it sends does
not see why."""

_CLOSE = {"Connection": "close"}  # what is left of a body is not read


@dataclass(frozen=True)
class Chat:
    """A request within the limits.

    Attributes:
        request: As it came.
        side: Who is to answer.
        messages: ``{"role", "content"}``, a system message only as the first, the user's last.
        max_new_tokens: Longest answer.
    """

    request: ChatRequest
    side: Side
    messages: list[dict[str, str]]
    max_new_tokens: int

    @property
    def questions(self) -> list[str]:
        """What the user said, the newest last."""
        return [m["content"] for m in self.messages if m["role"] == "user"]


async def read_chat(request: Request, settings: Settings) -> Chat:
    """Reads and checks the body of a chat request.

    Raises:
        Refusal: 400, 404, 408, 413 or 415.
        ClientDisconnect: The client went away before the end of its body.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also what keeps foreign web pages out: they cannot send this type without being allowed.
        raise Refusal(415, "expected Content-Type: application/json", code="wrong_content_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "expected no Content-Encoding", code="wrong_content_encoding")
    return checked(read_request(await _body(request, settings.max_body_bytes)), settings)


def checked(asked: ChatRequest, settings: Settings) -> Chat:
    """Holds a request against the limits.

    Raises:
        Refusal: 404 an unknown model, 400 what is too long, or no chat.
    """
    side = settings.models.get(asked.model)
    if side is None:
        raise unknown_model(settings)
    if asked.length is not None and asked.length > settings.max_new_tokens:
        name = "max_tokens" if asked.max_tokens else "max_completion_tokens"
        _too_much("longest answer", asked.length, settings.max_new_tokens, "tokens", name)
    if len(asked.messages) > settings.max_messages:
        _too_much("chat", len(asked.messages), settings.max_messages, "messages")
    characters = sum(len(message.text) for message in asked.messages)
    if characters > settings.max_prompt_characters:
        _too_much("chat", characters, settings.max_prompt_characters, "characters")
    _require_chat(asked.messages)
    messages = [
        {"role": "system" if m.role == "developer" else m.role, "content": m.text}
        for m in asked.messages
    ]
    return Chat(asked, side, messages, asked.length or settings.max_new_tokens)


def unknown_model(settings: Settings) -> Refusal:
    """Returns the 404 that names the models that there are."""
    told = f"unknown model; there are: {', '.join(settings.models)}"
    return Refusal(404, told, code="model_not_found", param="model")


def require_tokens(prompt: Sequence[int], settings: Settings) -> None:
    """Raises the Refusal of a prompt that has too many tokens."""
    if len(prompt) > settings.max_prompt_tokens:
        _too_much("chat", len(prompt), settings.max_prompt_tokens, "tokens")


def _require_chat(messages: Sequence[Message]) -> None:
    """Refuses an order of messages that has no meaning in ChatGLM3's format, and silence."""
    for n, message in enumerate(messages):
        if message.role in ("system", "developer") and n > 0:
            raise bad_request("a system message may only be the first", param=f"messages.{n}.role")
        if message.role == "user" and not _is_said(message.text):
            raise bad_request("the user's message is empty", param=f"messages.{n}.content")
    if messages[-1].role != "user":
        raise bad_request(
            "the last message must be the user's", param=f"messages.{len(messages) - 1}.role"
        )


def _is_said(text: str) -> bool:
    """Says whether anything can be seen of `text`: no space, control or zero-width character."""
    return any(c.isprintable() and not c.isspace() for c in text)


def _too_much(what: str, found: int, most: int, unit: str, param: str = "messages") -> None:
    code = "context_length_exceeded" if param == "messages" else "invalid_value"
    raise bad_request(
        f"the {what} has {found} {unit}, more than the {most} of this server",
        code=code,
        param=param,
    )


async def _body(request: Request, most: int) -> bytes:
    body = bytearray()
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size <= most:
                    body += part
                elif size > most + _DISCARDED:
                    break
    except TimeoutError:
        told = f"the body was not there after {BODY_SECONDS:g} seconds"
        raise Refusal(408, told, code="slow_body", headers=_CLOSE) from None
    if size > most:
        told = f"the body is larger than the {most} bytes of this server"
        raise Refusal(413, told, code="body_too_large", headers=_CLOSE)
    return bytes(body)
