"""The question page: static files, what they may do, and what they must know.

The page is plain HTML, CSS and JavaScript without a build step; it speaks the server's own OpenAI
API. Gradio's page would ask a CDN for a script and a web font.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from fastapi import APIRouter

Language = Literal["zh", "en"]

FOLDER = Path(__file__).with_name("page")
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Suffix of a file of the page to its media type."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no text ever becomes markup, whoever wrote it
    )
)
"""Content-Security-Policy: this server's own files, and requests to it alone."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

EXAMPLES: Mapping[Language, tuple[str, ...]] = {
    "zh": (
        "饮酒以后可以服用西地那非吗？",
        "二甲双胍的禁忌人群是谁？",
        "什么情况下会用到奥美拉唑？",
        "哪些人不能用氨氯地平？",
        "布洛芬是哪类药？",
    ),
    "en": (
        "Can I take sildenafil after drinking alcohol?",
        "Who must not take metformin?",
        "When is omeprazole used?",
        "Who must not take amlodipine?",
        "What kind of drug is ibuprofen?",
    ),
}
"""Questions to begin with: on drugs that the demo's training data names, so that its tiny model
has a chance."""

DISCLAIMER: Mapping[Language, str] = {
    "zh": "回答由模型生成，可能有错，不能代替医生的诊断和治疗。情况紧急请立即拨打 120。",
    "en": (
        "Answers are written by a model and may be wrong; they are no substitute for a doctor. "
        "In an emergency call 120."
    ),
}
"""What the page says at all times where no guard brings its own."""


def about(
    models: Mapping[str, str],
    *,
    max_prompt_characters: int,
    max_messages: int,
    needs_key: bool,
    disclaimer: Mapping[Language, str] = DISCLAIMER,
) -> dict[str, Any]:
    """Returns what ``GET /page.json`` tells the page.

    Args:
        models: Name in the API to side: ``{"medqa-tiny": "tuned", "medqa-tiny-base": "base"}``.
        max_prompt_characters: Characters (code points) of all messages of a request together.
        max_messages: Messages of a request.
        needs_key: The API answers only with a key; the page then asks for it.
        disclaimer: The guard's, in both languages.
    """
    return {
        "models": [{"id": name, "side": side} for name, side in models.items()],
        "max_prompt_characters": max_prompt_characters,
        "max_messages": max_messages,
        "needs_key": needs_key,
        "examples": {language: list(questions) for language, questions in EXAMPLES.items()},
        "disclaimer": dict(disclaimer),
    }


def router(facts: Mapping[str, Any]) -> "APIRouter":
    """Returns the page's routes, none of which needs a key or stands in the API's description.

    ``/`` is the page, ``/page/...`` its style, script and icon, ``/page.json`` `facts`. All
    addresses inside the page are relative, so that it also works below a proxy's path.

    Args:
        facts: As `about` returns them.
    """
    from fastapi import APIRouter
    from fastapi.responses import Response

    routes = APIRouter(include_in_schema=False)

    def add(address: str, content: bytes, kind: str) -> None:
        def answer() -> Response:
            return Response(content, media_type=kind, headers=HEADERS)

        routes.add_api_route(address, answer, methods=["GET", "HEAD"])

    for file in sorted(file for file in FOLDER.iterdir() if file.suffix in KINDS):
        address = "/" if file.name == "index.html" else f"/page/{file.name}"
        add(address, file.read_bytes(), KINDS[file.suffix])
    add("/page.json", json.dumps(dict(facts), ensure_ascii=False).encode(), "application/json")
    return routes
