"""The HTTP side: routes, and what stands around each request.

LLaMA-Factory's own app (``llamafactory/api/app.py``) is not built upon: it lets every web page ask
(CORS for ``*``, with credentials), opens files and addresses that a message names, has no limits,
and goes on generating for clients that have left.
"""

import asyncio
import time
import uuid

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from llamafactory.api.protocol import ModelCard, ModelList
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import medqa
from medqa.serve import framing, openapi, page
from medqa.serve.access import Access
from medqa.serve.answer import GONE, Answer, AnyEngine, Asked
from medqa.serve.engine import PromptTooLongError
from medqa.serve.guard import Guard
from medqa.serve.intake import read_chat, require_tokens, unknown_model
from medqa.serve.journal import Entry, cause_of
from medqa.serve.metrics import CONTENT_TYPE, Metrics
from medqa.serve.protocol import Health
from medqa.serve.refusal import Refusal, bad_request
from medqa.serve.settings import Settings
from medqa.serve.traffic import Traffic


def make_app(
    settings: Settings,
    engine: AnyEngine,
    guard: Guard | None,
    traffic: Traffic,
    key: str | None = None,
) -> FastAPI:
    """Returns the application.

    Args:
        settings: The serve YAML.
        engine: What answers; whoever starts it sets ``traffic.ready``.
        guard: What stands before and after an answer.
        traffic: What is under way.
        key: What clients must send as their bearer token; None for nothing.
    """
    # No pages of documentation: theirs load scripts from elsewhere.
    app = FastAPI(
        title="medqa",
        version=medqa.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    access, numbers = Access(key, settings.host), Metrics(traffic, lambda: engine.running)
    app.add_middleware(_Around, access=access, metrics=numbers)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(ClientDisconnect, _gone)
    _probes(app, traffic, numbers)
    _chat(app, settings, engine, guard, traffic)
    if settings.page:
        languages: tuple[page.Language, ...] = ("zh", "en")
        said = {one: guard.disclaimer(one) for one in languages} if guard else page.DISCLAIMER
        facts = page.about(
            settings.models,
            max_prompt_characters=settings.max_prompt_characters,
            max_messages=settings.max_messages,
            needs_key=access.needs_key,
            disclaimer=said,
        )
        app.include_router(page.router(facts))
    openapi.describe(app, settings, needs_key=access.needs_key)
    return app


def _probes(app: FastAPI, traffic: Traffic, numbers: Metrics) -> None:
    @app.get("/health", responses=openapi.errors(421))
    async def health() -> Health:
        """The process lives."""
        return Health(status="ok")

    @app.get("/ready", responses=openapi.errors(421, 503))
    async def ready() -> Health:
        """The model answers; 503 while it is loaded, and while the server ends."""
        traffic.require_ready()
        return Health(status="ok")

    @app.get("/metrics", response_class=Response, responses=openapi.METRICS)
    async def metrics() -> Response:
        """Counters and histograms for Prometheus."""
        return Response(numbers.text(), media_type=CONTENT_TYPE)


def _chat(
    app: FastAPI, settings: Settings, engine: AnyEngine, guard: Guard | None, traffic: Traffic
) -> None:
    started = int(time.time())
    cards = {name: ModelCard(id=name, created=started) for name in settings.models}

    @app.get("/v1/models", responses=openapi.errors(401, 421))
    async def models() -> ModelList:
        """What answers here, the tuned model first."""
        return ModelList(data=list(cards.values()))

    @app.get("/v1/models/{model}", responses=openapi.errors(401, 404, 421))
    async def one_model(model: str) -> ModelCard:
        """One of them."""
        if model not in cards:
            raise unknown_model(settings)
        return cards[model]

    @app.post("/v1/chat/completions", **openapi.CHAT)
    async def chat(request: Request) -> Response:
        """Answers a chat, whole or as a stream of server-sent events."""
        traffic.require_ready()
        entry: Entry = request.scope["state"]["entry"]
        asked = await read_chat(request, settings)
        entry.model, entry.side = asked.request.model, asked.side
        entry.stream = bool(asked.request.stream)
        # On a thread: a long question takes the rules a tenth of a second, and others are answered
        # meanwhile. Not so the tokenizer, which is quick and not made for threads.
        notices, messages = await asyncio.to_thread(framing.read, asked, guard)
        entry.notices = tuple(n.rule for n in (*notices.before, *notices.after))
        prompt = engine.encode(messages)
        entry.prompt_tokens = len(prompt)
        if settings.log_text:
            entry.text = {"messages": asked.messages}
        require_tokens(prompt, settings)
        try:
            engine.require_room(prompt, asked.max_new_tokens)
        except PromptTooLongError as error:
            raise bad_request(
                str(error), code="context_length_exceeded", param="messages"
            ) from None
        return Answer(Asked(asked, prompt, notices, entry), engine, traffic)


class _Around:
    """What stands around each request: who may ask, headers, the journal, the numbers."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self._app = app
        self._access = access
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry = Entry(id=f"chatcmpl-{uuid.uuid4().hex}", method=scope["method"])
        scope.setdefault("state", {})["entry"] = entry
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun, entry.status = True, message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", entry.id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
            try:
                self._access.check(scope["path"], headers)
            except Refusal as refusal:
                await _response(refusal, entry)(scope, receive, sending)
            else:
                await self._app(scope, receive, sending)
        except Exception as error:
            entry.error, entry.cause = "internal", cause_of(error)
            if begun:
                raise  # the server cuts the connection, so that nobody takes a part for the whole
            failed = Refusal(500, "the server failed; its log says where", code="internal")
            await _response(failed, entry)(scope, receive, sending)
        finally:
            route = scope.get("route")
            entry.path = getattr(route, "path", None)
            entry.seconds = entry.elapsed()
            entry.write()
            self._metrics.add(entry)


def _response(refusal: Refusal, entry: Entry) -> Response:
    entry.error = refusal.code
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _response(error, request.scope["state"]["entry"])


async def _unknown(request: Request, error: Exception) -> Response:
    """The framework's own refusals: no such address, no such method."""
    assert isinstance(error, HTTPException)
    told = {404: "there is nothing at this address; see /openapi.json", 405: "no such method here"}
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    message = told.get(error.status_code, "the request cannot be read")
    refusal = Refusal(error.status_code, message, code=code, headers=error.headers)
    return _response(refusal, request.scope["state"]["entry"])


async def _gone(request: Request, _: Exception) -> Response:
    return Response(status_code=GONE)  # nobody receives it
