"""OpenAI's chat completions as they are spoken here: requests read strictly, answers written fast.

What is answered has the types of ``llamafactory/api/protocol.py``. What is asked has types of our
own: LLaMA-Factory's drop every field that they do not know, so that a client which sends
``response_format`` or a misspelt ``max_token`` gets another answer than it asked for, without a
word. Here a field is read, or does not change an answer (`ChatRequest` says which), or is refused.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import orjson
from llamafactory.api.protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseUsage,
    ChatCompletionStreamResponse,
)
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from medqa.config import nearest
from medqa.serve.refusal import Refusal, bad_request

Part = Literal["emergency", "answer", "dose", "disclaimer"]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _whole(value: object) -> object:
    """Takes 1.0 for 1, which JSON (RFC 8259) does not tell apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _boolean(value: object) -> object:
    """Keeps 0 from passing for false."""
    return value if isinstance(value, bool) else None


Whole = Annotated[int, BeforeValidator(_whole)]


class TextPart(_Wire):
    """A part of a message; of OpenAI's kinds only text."""

    type: Literal["text"]
    text: str


class Message(_Wire):
    """A message of a chat.

    The fields after `content` are what clients send back with an answer of ours, empty.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None
    annotations: None = None

    @property
    def text(self) -> str:
        """All that it says."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class StreamOptions(_Wire):
    """Options of a stream.

    Attributes:
        include_usage: A last chunk has the token counts.
        include_obfuscation: Changes nothing: no padding is sent.
    """

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ChatRequest(_Wire):
    """The body of ``POST /v1/chat/completions``.

    Attributes:
        model: A name of ``GET /v1/models``.
        messages: The chat; the last is the user's, a system message may only be the first.
        max_tokens: Longest answer; the server's limit where it is left out.
        max_completion_tokens: The same by its newer name.
        temperature: 0, the default here, says the likeliest token each time.
        top_p: Draws among the likeliest tokens that together have this probability.
        seed: Makes a draw repeatable.
        stream: Send the answer as it is made.
        stream_options: Options of a stream.
        user: This and the next four do not change an answer and are not read.
        n: This and all that follow have one value, the one that changes nothing.
    """

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[Whole, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[Whole, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    n: Annotated[Whole, Field(ge=1, le=1)] | None = None
    stop: None = None
    logprobs: Annotated[Literal[False], BeforeValidator(_boolean)] | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    tools: None = None
    tool_choice: Literal["none"] | None = None
    parallel_tool_calls: None = None
    functions: None = None
    function_call: Literal["none"] | None = None
    response_format: "TextFormat | None" = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None

    @property
    def length(self) -> int | None:
        """The longest answer asked for."""
        return self.max_tokens or self.max_completion_tokens

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise PydanticCustomError(
                "max_tokens", "max_tokens and max_completion_tokens are the same; send one"
            )
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("stream_options", "stream_options is for stream: true only")
        return self


class TextFormat(_Wire):
    """The one form of an answer."""

    type: Literal["text"]


class MedqaPart(BaseModel):
    """A part of an answer: the model's words, or a notice of the guard's."""

    part: Part
    text: str


class MedqaParts(BaseModel):
    """What an answer is made of; the parts joined are its content."""

    parts: list[MedqaPart]


class MedqaLabel(BaseModel):
    """What a chunk of a stream belongs to."""

    part: Part


class Completion(ChatCompletionResponse):  # type: ignore[misc]
    """A whole answer."""

    medqa: MedqaParts


class Chunk(ChatCompletionStreamResponse):  # type: ignore[misc]
    """A part of a stream; the first carries the role, the last of an answer its finish_reason."""

    usage: ChatCompletionResponseUsage | None = None
    medqa: MedqaLabel | None = None


class Health(BaseModel):
    """The server lives, or the model answers."""

    status: Literal["ok"]


class ErrorFields(BaseModel):
    """What went wrong."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class Error(BaseModel):
    """The body of every status from 400 on.

    `medqa` is there when a question that wanted an emergency notice got no answer: the notice.
    """

    error: ErrorFields
    medqa: MedqaParts | None = None


_FIELDS = list(ChatRequest.model_fields)
_NEUTRAL = frozenset(_FIELDS[_FIELDS.index("n") :])
_WORDS = {
    "missing": "is missing",
    "none_required": "is not supported here; leave it out",
    "model_type": "expected an object",
    "model_attributes_type": "expected an object",
}
_SHOWN = 5  # problems named in one message


def read_request(body: bytes) -> ChatRequest:
    """Returns the request in a body.

    Raises:
        Refusal: 400: it is no JSON text (RFC 8259), has a key twice, or is no such request.
    """
    values = read_json(body)
    try:
        return ChatRequest.model_validate(values)
    except ValidationError as error:
        raise _refusal(error) from None


def read_json(body: bytes) -> Any:
    """Returns the value of a JSON text that every reader takes for the same.

    orjson refuses what is not RFC 8259 or no text: NaN, lone surrogates, bytes that are not UTF-8,
    and what nests too deep. Of equal keys it keeps the last and others the first, so that a proxy
    and this server may see two different questions: they are refused.

    Raises:
        Refusal: 400.
    """
    try:
        values = orjson.loads(body)
        json.loads(body, object_pairs_hook=_unique)
    except _TwiceError as error:
        raise bad_request(f"the body has a key twice: {error}", code="invalid_json") from None
    except (ValueError, RecursionError) as error:
        told = str(error).partition(":")[0] if isinstance(error, ValueError) else "nests too deep"
        raise bad_request(f"the body is not valid JSON ({told})", code="invalid_json") from None
    return values


class _TwiceError(Exception):
    """Two equal keys in one object."""


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise _TwiceError(repr(key[:40]))
        seen.add(key)


def _refusal(error: ValidationError) -> Refusal:
    problems: dict[str, str] = {}
    for found in error.errors(include_url=False, include_context=True):
        name, said = _problem(found)
        problems.setdefault(name, said)
    told = [f"{name}: {said}" if name else said for name, said in problems.items()]
    more = len(told) - _SHOWN
    message = "; ".join(told[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return bad_request(message, param=next(iter(problems)) or None)


def _problem(found: ErrorDetails) -> tuple[str, str]:
    """Returns a field and what is wrong with it, without the value."""
    where = list(found["loc"])
    if found["type"] == "extra_forbidden":
        model = Message if where[0] == "messages" else ChatRequest
        return _dotted(where), f"is unknown here{nearest(str(where[-1]), model.model_fields)}"
    if "content" in where and where[0] == "messages":
        return _dotted(where[:3]), "expected text, or a list of {'type': 'text', 'text': ...}"
    if where and where[0] in _NEUTRAL:
        return str(where[0]), "is not supported here; leave it out"
    said = _WORDS.get(found["type"], found["msg"][:1].lower() + found["msg"][1:])
    return _dotted(where), said


def _dotted(where: Sequence[str | int]) -> str:
    return ".".join(str(part)[:40] for part in where)
