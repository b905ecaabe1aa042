"""A model behind an OpenAI-compatible address: who it is, and its answers."""

import math
import os
import re
from collections.abc import Container, Iterator, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from medqa.compare.generate import Answer
from medqa.compare.replies import OURS, replies
from medqa.config import UNSHOWN, Strict
from medqa.errors import ConfigError

Message = dict[str, str]


def _address(url: str) -> str:
    """Refuses what is no base address; never shows it, for a key may stand in it."""
    try:
        parts = urlsplit(url)
        hidden = parts.username or parts.password or parts.query or parts.fragment
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        hidden, sound = None, False
    if not sound or re.search(r"\s", url):
        problem = "expected an address such as http://127.0.0.1:8000/v1"
    elif hidden:
        problem = (
            "expected no user, password, ? or # in the address; put the key into an environment "
            "variable and its name into api_key_env"
        )
    elif parts.path.rstrip("/").endswith("/completions"):
        problem = "expected the address without /chat/completions at its end"
    else:
        return url
    raise PydanticCustomError(UNSHOWN, problem)


def _variable(name: str) -> str:
    """Refuses what is no variable's name; never shows it, for it may be the key itself."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise PydanticCustomError(
            UNSHOWN, "expected the name of an environment variable, not the key itself"
        )
    return name


def _free(extra: dict[str, Any]) -> dict[str, Any]:
    if taken := sorted(OURS & extra.keys()):
        raise PydanticCustomError(UNSHOWN, f"{', '.join(taken)} cannot be set here")
    return extra


class Endpoint(Strict):
    """A model behind an address that speaks OpenAI's chat completions.

    Attributes:
        base_url: What stands before ``/chat/completions``; mostly it ends in ``/v1``.
        model: The name that the server knows it by.
        api_key_env: The environment variable that holds the key; none is sent when left out.
        timeout: Seconds that the server may be silent.
        retries: How often a request is sent again after a time-out, a broken connection, a
            status of 408, 409, 429 or from 500 on, or an answer that cannot be read.
        concurrency: Requests under way at a time.
        seed: Sent along; where the server heeds it, equal requests get equal answers.
        extra: More keys of the request's body, or other values of ours; null leaves one out.
            Some models want ``{max_tokens: null, max_completion_tokens: 2048, temperature:
            null}``, others ``{enable_thinking: false}``.
    """

    base_url: Annotated[str, AfterValidator(_address)]
    model: Annotated[str, Field(min_length=1)]
    api_key_env: Annotated[str, AfterValidator(_variable)] | None = None
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 4
    concurrency: Annotated[int, Field(ge=1)] = 4
    seed: int = 0
    extra: Annotated[dict[str, Any], AfterValidator(_free)] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"endpoint {self.model!r} at {self.base_url}"

    def key(self) -> str | None:
        """Returns the key; None where the endpoint wants none.

        Raises:
            ConfigError: The variable is not set, or holds what cannot be a key.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            problem = f"environment variable {self.api_key_env} is not set; export it with the key"
        elif not re.fullmatch(r"[!-~]+", key):
            problem = f"environment variable {self.api_key_env} holds more than a key"
        else:
            return key
        raise ConfigError(self.name, [problem])

    def body(self, messages: Sequence[Message], max_new_tokens: int) -> dict[str, Any]:
        """Returns all that is sent: `messages`, and how to answer them: greedily."""
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "seed": self.seed,
            "max_tokens": max_new_tokens,
            **self.extra,
        }
        return {name: value for name, value in body.items() if value is not None}


class EndpointAnswers:
    """Answers of one endpoint, in the form in which a loaded model gives them.

    Raises:
        ConfigError: Its key is not there.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        endpoint.key()

    def answers(
        self, questions: Sequence[str], *, max_new_tokens: int, kept: Container[object] = ()
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Asks every question once, greedily.

        Args:
            questions: Each is sent alone, as the user's message.
            max_new_tokens: Longest answer.
            kept: Indices of questions that need no asking: a journal has their answers.

        Yields:
            Indices with answers, as they come in: not in the questions' order. `Answer.tokens` is
            the endpoint's own count, or `rough_tokens` where it gives none.

        Raises:
            UserError: The endpoint refuses a request.
            StepError: It fails still after all retries.
        """
        asked = (
            (n, self.endpoint.body([{"role": "user", "content": question}], max_new_tokens))
            for n, question in enumerate(questions)
            if n not in kept
        )
        for batch in replies(self.endpoint, asked):
            yield [
                (
                    n,
                    Answer(
                        reply.text.strip(),
                        rough_tokens(reply.text)
                        if reply.output_tokens is None
                        else reply.output_tokens,
                        reply.finished,
                    ),
                )
                for n, reply in batch
            ]


def rough_tokens(text: str) -> int:
    """Returns about how many tokens `text` is, for an endpoint whose tokenizer nobody knows.

    One for each character beyond ASCII, one for every four of ASCII. Vendors say 0.6 to 1 for a
    Chinese character, so this mostly says too much; it is no measurement.
    """
    simple = sum(map(str.isascii, text))
    return len(text) - simple + math.ceil(simple / 4)
