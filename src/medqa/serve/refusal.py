"""The errors of the API, in OpenAI's form."""

from collections.abc import Mapping, Sequence
from typing import Any


class Refusal(Exception):
    """A request that ends with an error.

    Args:
        status: The HTTP status.
        message: One line for whoever reads the client's log; never what the user wrote, nor a key.
        code: The same for a program: ``model_not_found``.
        param: The field of the request that is wrong.
        headers: Headers of the response: ``Retry-After``, ``WWW-Authenticate``, ``Allow``.

    Attributes:
        parts: Notices that the question wanted and that stand without an answer now.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        self.parts: Sequence[tuple[str, str]] = ()

    @property
    def body(self) -> dict[str, Any]:
        """``{"error": {"message", "type", "param", "code"}}``; the notices lead the message."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        message = "".join(text for _, text in self.parts) + self.message
        error = {"message": message, "type": kind, "param": self.param, "code": self.code}
        if not self.parts:
            return {"error": error}
        parts = [{"part": part, "text": text} for part, text in self.parts]
        return {"error": error, "medqa": {"parts": parts}}


def bad_request(message: str, *, code: str = "invalid_value", param: str | None = None) -> Refusal:
    """Returns a 400."""
    return Refusal(400, message, code=code, param=param)


def unavailable(message: str, *, code: str, retry_after: int) -> Refusal:
    """Returns a 503 with ``Retry-After``, in seconds; OpenAI's client heeds it by itself."""
    return Refusal(503, message, code=code, headers={"Retry-After": str(retry_after)})
