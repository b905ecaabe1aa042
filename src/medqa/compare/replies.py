"""Requests to an OpenAI-compatible endpoint: several at a time, with retries, until one fails."""

import asyncio
import math
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from medqa.errors import MedqaError, StepError, UserError

if TYPE_CHECKING:
    import openai

    from medqa.compare.endpoint import Endpoint

Key = TypeVar("Key")

OURS = frozenset({"messages", "model", "n", "stream"})
# The library sends these on its own; no answer depends on them, so they stay here.
_UNSAID = (
    "OpenAI-Organization",
    "OpenAI-Project",
    "X-Stainless-OS",
    "X-Stainless-Arch",
    "X-Stainless-Runtime",
    "X-Stainless-Runtime-Version",
)
_FAILURES = frozenset({408, 409, 429})  # with 500 and more: what the library tries again


@dataclass(frozen=True)
class Reply:
    """What an endpoint said.

    Attributes:
        text: The message.
        finished: It was not cut, neither for its length nor by a filter.
        input_tokens: What the endpoint says it read; None when it does not say.
        output_tokens: What it says it wrote.
    """

    text: str
    finished: bool
    input_tokens: int | None
    output_tokens: int | None


def replies(
    endpoint: "Endpoint", requests: Iterable[tuple[Key, dict[str, Any]]]
) -> Iterator[list[tuple[Key, Reply]]]:
    """Sends `requests`, keys with bodies, at most `endpoint.concurrency` at a time.

    One event loop, not a pool of threads: a thread that waits for a silent server cannot be
    stopped, and Ctrl-C would wait with it for every time-out of every retry.

    Yields:
        Keys with replies, as soon as there are some.

    Raises:
        ConfigError: The key is not there.
        UserError: The endpoint refuses a request.
        StepError: It fails still after all retries. In both cases no further request is begun;
            those under way are given one more time-out, and yielded before the error.
    """
    waiting, failure, deadline = iter(requests), None, math.inf
    under_way: dict[asyncio.Task[Reply], Key] = {}
    client = _client(endpoint)
    with asyncio.Runner() as runner:
        try:
            while failure is None or under_way:
                while failure is None and len(under_way) < endpoint.concurrency:
                    if (request := next(waiting, None)) is None:
                        break
                    task = runner.get_loop().create_task(_reply(client, endpoint, request[1]))
                    under_way[task] = request[0]
                ended = runner.run(_ended(under_way, deadline)) if under_way else []
                if not ended:
                    break
                batch = []
                for task in ended:
                    key = under_way.pop(task)
                    try:
                        batch.append((key, task.result()))
                    except MedqaError as error:
                        failure = failure or error
                        deadline = min(deadline, time.monotonic() + endpoint.timeout)
                if batch:
                    yield batch
        finally:
            runner.run(_close(client, under_way))
    if failure:
        raise failure


async def _ended(
    tasks: Collection[asyncio.Task[Reply]], deadline: float
) -> list[asyncio.Task[Reply]]:
    """Waits until one has ended; returns those that have, in the order of their beginning."""
    left = None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)
    done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
    return [task for task in tasks if task in done]


async def _close(client: "openai.AsyncOpenAI", tasks: Collection[asyncio.Task[Reply]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


def _client(endpoint: "Endpoint") -> "openai.AsyncOpenAI":
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    return AsyncOpenAI(
        # Given none, the library would send the one in $OPENAI_API_KEY, wherever this goes.
        api_key=endpoint.key() or "none",
        base_url=endpoint.base_url,
        timeout=endpoint.timeout,
        # A redirected request would carry the question to an address that nobody wrote down.
        http_client=DefaultAsyncHttpxClient(follow_redirects=False),
    )


async def _reply(client: "openai.AsyncOpenAI", endpoint: "Endpoint", body: dict[str, Any]) -> Reply:
    """Sends one request, again where that may help.

    The library does it for what failed on the way, this loop for what arrived and is no chat
    completion; they share `endpoint.retries`.
    """
    import openai

    headers: dict[str, Any] = dict.fromkeys(_UNSAID, openai.Omit())
    if endpoint.api_key_env is None:
        headers["Authorization"] = openai.Omit()
    rest = {name: value for name, value in body.items() if name not in OURS}
    left = endpoint.retries
    while True:
        chat = client.with_options(max_retries=left).chat.completions.with_raw_response
        try:
            raw = await chat.create(
                model=body["model"],
                messages=body["messages"],
                extra_body=rest,
                extra_headers=headers,
            )
        except openai.APIError as error:
            raise _explained(endpoint, error) from None
        try:
            return _read(raw.content)
        except ValidationError:
            left -= raw.retries_taken + 1
            if left < 0:
                said = _plain(endpoint, raw.text)
                raise _gave_up(endpoint, f"what it sent is no chat completion: {said}") from None
        await asyncio.sleep(min(0.5 * 2 ** (endpoint.retries - left - 1), 8.0))


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """As much of a chat completion as is read; the library checks nothing of it."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


def _read(content: bytes) -> Reply:
    found = _Completion.model_validate_json(content)
    choice, usage = found.choices[0], found.usage or _Usage()
    return Reply(
        choice.message.content or "",
        choice.finish_reason not in ("length", "content_filter"),
        usage.prompt_tokens,
        usage.completion_tokens,
    )


def _explained(endpoint: "Endpoint", error: "openai.APIError") -> MedqaError:
    """Returns what the library's error means to whoever runs this."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return _gave_up(endpoint, f"no answer within {endpoint.timeout:g} s")
    if not isinstance(error, openai.APIStatusError):
        cause = error.__cause__ or error
        return _gave_up(endpoint, _plain(endpoint, str(cause)) or type(cause).__name__)
    status = error.status_code
    said = _plain(endpoint, error.message)  # begins with the status
    if status in _FAILURES or status >= 500:
        return _gave_up(endpoint, said)
    if status in (401, 403):
        held = endpoint.api_key_env
        cure = f"look at the key in {held}" if held else "name the key's variable in api_key_env"
    elif status == 404 or status < 400:
        cure = "look at base_url (mostly it ends in /v1) and model"
    else:
        cure = "look at model, the longest answer, and extra"
    return UserError(f"{endpoint.name} refuses the request: {said}; {cure}")


def _gave_up(endpoint: "Endpoint", cause: str) -> StepError:
    return StepError(
        f"{endpoint.name} failed (retries: {endpoint.retries}): {cause}; "
        "run the same command again: it asks only what has no answer yet"
    )


def _plain(endpoint: "Endpoint", text: str) -> str:
    """Returns what a server said as one short printable line without the key."""
    if key := endpoint.key():
        text = text.replace(key, "…")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
