"""The serve YAML: which model answers, where, and what it takes on."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from medqa.config import Strict

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Side = Literal["base", "tuned"]


class Settings(Strict):
    """A serve YAML.

    Attributes:
        model_name_or_path: The model's folder.
        adapter_name_or_path: An adapter for it: base and tuned model then answer from the memory
            of one. Without it the folder is the tuned model.
        name: The tuned model in the API; the base is ``<name>-base``.
        engine: What computes: our continuous batching, or vLLM.
        host: The address to listen on; any but this machine's own wants a key.
        port: The port to listen on; 0 takes a free one.
        page: Serve the question page at ``/``.
        guard: The YAML of notices before and after an answer; null for none.
        max_new_tokens: Longest answer, and its length where a request asks for none.
        max_prompt_tokens: Longest prompt, all messages of a chat and their format included.
        max_prompt_characters: Longest chat in characters; refused before it is tokenized.
        max_messages: Most messages of a chat.
        max_body_bytes: Largest request; refused before it is parsed.
        concurrency: Answers computed at a time.
        queue: Requests that wait for their turn; the next is answered 503.
        request_timeout: Seconds from a request to the end of its answer.
        shutdown_timeout: Seconds that answers under way get to end after SIGTERM or Ctrl-C.
        log_text: Write questions and answers into the log too.
    """

    model_name_or_path: str
    adapter_name_or_path: str | None = None
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    engine: Literal["continuous", "vllm"] = "continuous"
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    page: bool = True
    guard: str | None = None
    max_new_tokens: Count
    max_prompt_tokens: Count
    max_prompt_characters: Count
    max_messages: Count
    max_body_bytes: Count
    concurrency: Count
    queue: Annotated[int, Field(ge=0)]
    request_timeout: Seconds
    shutdown_timeout: Seconds
    log_text: bool = False

    @property
    def models(self) -> dict[str, Side]:
        """Name in the API to the side that answers, the tuned one first."""
        sides: dict[str, Side] = {self.name: "tuned"}
        if self.adapter_name_or_path:
            sides[f"{self.name}-base"] = "base"
        return sides

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        least = 4 * self.max_prompt_characters  # UTF-8 takes up to four bytes a character
        if self.max_body_bytes < least:
            raise PydanticCustomError(
                "keys",
                f"max_body_bytes {self.max_body_bytes} cannot hold max_prompt_characters "
                f"{self.max_prompt_characters}; expected at least {least}",
            )
        return self
