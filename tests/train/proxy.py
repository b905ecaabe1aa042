"""A reverse proxy as rented machines have one: it shows a port under a path of its own address."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

DROPPED = ("connection", "content-length", "host", "transfer-encoding")


@contextmanager
def proxy(target: str, path: str, port: int, *, late: float = 0.0) -> Iterator[str]:
    """Shows `target` at `path`, streams included; yields its address.

    The end of Gradio's streams comes `late` seconds late, as a slow connection may let it.
    """
    # A connection for each request, as nginx by default: one kept for later may be just closing at
    # the server when a click is sent on it (both ends give it five seconds), and the click is lost.
    limits = httpx.Limits(max_keepalive_connections=0)
    client = httpx.AsyncClient(base_url=target, timeout=None, trust_env=False, limits=limits)

    async def forward(request: Request) -> StreamingResponse:
        headers = {k: v for k, v in request.headers.items() if k not in DROPPED}
        headers |= {"x-forwarded-host": request.headers["host"], "x-forwarded-proto": "http"}
        url = request.url.path.removeprefix(path) or "/"
        sent = client.build_request(
            request.method,
            httpx.URL(url, query=request.url.query.encode()),
            headers=headers,
            content=await request.body(),
        )
        answer = await client.send(sent, stream=True)
        kept = {k: v for k, v in answer.headers.items() if k not in DROPPED}

        async def body() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw():
                    await asyncio.sleep(late if b"close_stream" in piece else 0)
                    yield piece
            finally:
                await answer.aclose()

        return StreamingResponse(body(), answer.status_code, kept)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = Starlette(
        routes=[Route(path + "{rest:path}", forward, methods=["GET", "POST", "HEAD"])],
        lifespan=lifespan,
    )
    config = uvicorn.Config(app, "127.0.0.1", port, log_level="error", ws="none")
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}{path}/"
    finally:
        server.should_exit = True
        thread.join()
