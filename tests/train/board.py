"""LlamaBoard started as a user starts it, and driven by clicks."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Request

ROOT = Path(__file__).parents[2]
SECONDS = 400  # that a slow machine may take to start, or to train
ENVIRONMENT = {
    # So small a model gains nothing by threads, and on a busy machine they wait for ever.
    "OMP_NUM_THREADS": "1",
    # The page shows what a training says, and at WARNING no loss.
    "LLAMAFACTORY_VERBOSITY": "INFO",
}
FINISHED, LOADED, EXPORTED = "训练完毕。", "模型已加载，可以开始聊天了！", "模型导出完成。"
SAVED = "训练参数已保存至："


@dataclass(frozen=True)
class Server:
    """A process that serves a page, and where it answers."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + SECONDS
        while not answers(self.url):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.2)


@contextmanager
def running(project: Path, *words: str) -> Iterator[Server]:
    """Serves the page on `project`; afterwards it is gone, whatever happened."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Tests run in the background of a shell, and what they start would not hear Ctrl-C either.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    port = free_port()
    log = project / f"webui-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts/webui.py"), "--port", str(port), *words],
            env=os.environ | ENVIRONMENT | {"MEDQA_ROOT": str(project)},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    server = Server(process, port, log)
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it ends its training itself
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def explained(page: "Page", server: Server) -> Iterator[None]:
    """Adds to what goes wrong in the block what the page shows, has asked, and its server says."""
    from playwright.sync_api import Error as PlaywrightError

    began = time.monotonic()
    asked: list[str] = []

    def note(event: str, request: "Request") -> None:
        if "gradio_api" in request.url:
            path = request.url.partition("gradio_api")[2]
            said = (request.post_data or "")[-60:]
            asked.append(f"{time.monotonic() - began:.2f} {event} {request.method} {path} {said}")

    page.on("request", lambda request: note("asked", request))
    page.on("response", lambda response: note(f"{response.status}", response.request))
    page.on("requestfailed", lambda request: note("failed", request))
    page.on("pageerror", lambda error: asked.append(f"error {error}"))
    try:
        yield
    except BaseException as error:
        error.add_note("\n".join(asked)[-4000:])
        error.add_note(server.said()[-4000:])
        with suppress(psutil.Error, PlaywrightError):  # either may be gone
            error.add_note(f"{psutil.Process(server.process.pid).children(recursive=True)}")
            error.add_note(page.inner_text("body", timeout=5000)[-4000:])
        raise


class Board:
    """The page in a browser. Of several elements with one label the first is the tab Train's."""

    def __init__(self, page: "Page", url: str) -> None:
        self.page = page
        page.set_default_timeout(SECONDS * 1000)
        page.goto(url)
        # Filled in by the event that runs when the page has been opened.
        self.expect_value("模型路径", re.compile("/models/"))

    def box(self, label: str) -> "Locator":
        """Returns the box to type into that has `label`."""
        block = self.page.locator(f'.block:has(span[data-testid="block-info"]:text-is("{label}"))')
        return block.locator("textarea, input").first

    def expect_value(self, label: str, value: "str | re.Pattern[str]") -> None:
        from playwright.sync_api import expect

        expect(self.box(label)).to_have_value(value, timeout=SECONDS * 1000)

    def wait_for_value(self, value: str) -> None:
        """Waits until a box without a label says `value`."""
        said = "said => [...document.querySelectorAll('textarea')].some(e => e.value === said)"
        self.page.wait_for_function(said, arg=value)

    def choose(self, label: str, *options: str) -> None:
        """Chooses from a list by clicks; where several may be chosen, these alone."""
        listed = self.page.get_by_label(label, exact=True).first
        block = self.page.locator(f'.block:has(span[data-testid="block-info"]:text-is("{label}"))')
        clear = block.first.locator(".token-remove.remove-all")
        if clear.count():
            clear.click()
        for option in options:
            listed.click()
            self.page.locator("ul[role=listbox] li", has_text=option).first.click()
        self.page.keyboard.press("Escape")

    def button(self, text: str) -> "Locator":
        return self.page.get_by_role("button", name=text, exact=True).locator("visible=true").first

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()
