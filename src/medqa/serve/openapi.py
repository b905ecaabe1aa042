"""The API's description: what is taken and what can come back, limits and errors included."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from medqa.serve.metrics import CONTENT_TYPE
from medqa.serve.protocol import ChatRequest, Chunk, Completion, Error
from medqa.serve.settings import Settings

_REFERENCE = "#/components/schemas/{model}"
_TOLD = {
    400: "No valid chat, or beyond a limit",
    401: "The key is missing or wrong",
    404: "No such model",
    408: "The body came too slowly",
    413: "The body is too large",
    415: "Not application/json",
    421: "Meant for another host",
    500: "The model failed",
    503: "Loading, shutting down, or the queue is full; Retry-After says when to come again",
    504: "The answer took too long",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the part of a route's description that says how it can fail."""
    return {
        status: {
            "model": Error,
            "description": _TOLD[status],
            **({"headers": {"Retry-After": _seconds()}} if status == 503 else {}),
        }
        for status in statuses
    }


def _seconds() -> dict[str, Any]:
    return {"description": "Seconds", "schema": {"type": "string", "pattern": "^[0-9]+$"}}


_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "anyOf": [
                {"const": "[DONE]"},
                {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {
                        "anyOf": [
                            {"$ref": _REFERENCE.format(model=model)} for model in ("Chunk", "Error")
                        ]
                    },
                },
            ]
        }
    },
}

METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format",
        "content": {CONTENT_TYPE: {"schema": {"type": "string"}}},
    },
    **errors(401, 421),
}

CHAT: dict[str, Any] = {
    "responses": {
        200: {
            "model": Completion,
            "description": "The answer; with `stream` as events, of which the last is `[DONE]`",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        **errors(*_TOLD),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _REFERENCE.format(model="ChatRequest")}}
            },
        }
    },
}


def describe(app: FastAPI, settings: Settings, *, needs_key: bool) -> None:
    """Lets ``/openapi.json`` tell the limits of `settings`, and that a key is wanted."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _description(app, settings, needs_key=needs_key)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def _description(app: FastAPI, settings: Settings, *, needs_key: bool) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = found["components"]["schemas"]
    for model in (ChatRequest, Chunk):
        schema = model.model_json_schema(ref_template=_REFERENCE)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    fields = schemas["ChatRequest"]["properties"]
    fields["model"]["enum"] = list(settings.models)
    fields["messages"]["maxItems"] = settings.max_messages
    for name in ("max_tokens", "max_completion_tokens"):
        fields[name]["anyOf"][0]["maximum"] = settings.max_new_tokens
    question = {"role": "user", "content": "华法林有什么禁忌？"}
    schemas["ChatRequest"]["example"] = {"model": settings.name, "messages": [question]}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    if needs_key:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in found["paths"].items():
        for operation in methods.values():
            operation["responses"].pop("422", None)  # FastAPI's own; ours are 400
            if needs_key and (path.startswith("/v1/") or path == "/metrics"):
                operation["security"] = [{"key": []}]
    return found
