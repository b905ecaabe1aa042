"""A page of Gradio's behind a connection on which the end of a stream comes late."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium
from tests.train.board import ROOT, Server, free_port
from tests.train.proxy import proxy

pytestmark = pytest.mark.slow

PATH = "/proxy/6006"


@contextmanager
def page_behind_proxy(log: Path, *words: str) -> Iterator[Any]:
    """Opens the page with two buttons, each of which writes its name into one box."""
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.train.two_buttons", str(port), PATH, *words],
            cwd=ROOT,
            env=os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"},
            stdout=out,
            stderr=out,
        )
    server = Server(process, port, log)
    try:
        server.wait_until_it_answers()
        behind = proxy(server.url, PATH, free_port(), late=1.0)
        with behind as url, chromium() as browser:
            page = browser.new_page()
            page.route(lambda asked: not asked.startswith(url), lambda route: route.abort())
            page.goto(url)
            yield page
    finally:
        process.kill()
        process.wait()


def click(page: Any, word: str, *, seconds: float = 60) -> None:
    """Clicks one button and waits until the box says so."""
    from playwright.sync_api import expect

    page.get_by_role("button", name=word).click()
    expect(page.get_by_label("said")).to_have_value(word, timeout=seconds * 1000)


def test_no_click_is_lost_where_a_stream_ends(tmp_path: Path) -> None:
    with page_behind_proxy(tmp_path / "log") as page:
        for word in ("one", "two") * 5:
            click(page, word)
    assert "Traceback" not in (tmp_path / "log").read_text(encoding="utf-8")


def test_gradio_by_itself_loses_one(tmp_path: Path) -> None:
    with page_behind_proxy(tmp_path / "log", "--as-it-is") as page:
        click(page, "one")
        with pytest.raises(AssertionError, match="Actual value: one"):
            click(page, "two", seconds=8)
