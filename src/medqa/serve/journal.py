"""One JSON line for each request, without what people wrote unless that is asked for."""

import logging
import sys
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

logger = logging.getLogger("medqa.serve")
_SILENT = ("/health", "/ready", "/metrics")
"""Asked every few seconds by machines; logged only when refused."""


@dataclass
class Entry:
    """What is known of a request; whoever learns something writes it here.

    Attributes:
        id: The request's, ``x-request-id`` of its response.
        method: HTTP's.
        path: The route, not what the client wrote; None where there is none.
        status: HTTP's; 499 where the client went away before the end, as nginx counts it.
        model: The name asked for, where it is one of ours.
        side: Who answers.
        stream: The answer is a stream.
        prompt_tokens: Length of the prompt.
        completion_tokens: Length of the model's own answer.
        first_token: Seconds from the request to the model's first words.
        seconds: Seconds from the request to the end.
        notices: Rules of the guard that put something before or after the answer.
        error: Code of the error, also of one after the response began.
        cause: Type and place of an exception; never its message, in which text may stand.
        text: Messages and answer, only where the YAML says ``log_text: true``.
    """

    id: str
    method: str
    path: str | None = None
    status: int = 0
    model: str | None = None
    side: str | None = None
    stream: bool | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token: float | None = None
    seconds: float = 0.0
    notices: tuple[str, ...] = ()
    error: str | None = None
    cause: str | None = None
    text: dict[str, Any] | None = None
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds since the request."""
        return time.monotonic() - self.started

    def line(self) -> bytes:
        """Returns the entry as JSON, what is not known left out."""
        values = {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in vars(self).items()
            if value not in (None, ()) and name != "started"
        }
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return orjson.dumps({"time": now, **values})

    def write(self) -> None:
        """Writes the line, unless it says that a probe went well."""
        if self.status >= 400 or self.path not in _SILENT:
            logger.info(self.line().decode())


def cause_of(error: BaseException) -> str:
    """Returns the type of an exception and the line it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def to_stderr() -> None:
    """Sends the journal, and what uvicorn has to say, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name, level in (("medqa.serve", logging.INFO), ("uvicorn", logging.ERROR)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        if record.name == logger.name:
            return record.getMessage()
        now = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values = {"time": now, "error": record.name, "message": record.msg.strip()}
        if record.exc_info and record.exc_info[1]:
            values["cause"] = cause_of(record.exc_info[1])
        return orjson.dumps(values).decode()
