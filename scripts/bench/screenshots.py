"""Take the README's two pictures of the question page, from the real server on the tiny model.

    make demo && python scripts/bench/screenshots.py [--folder .github]

Writes page.png (a desktop, base and tuned side by side) and page_phone.png (an emergency). Needs
Chromium, medqa[dev] and a Chinese font.
"""

import io
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medqa import cli, paths
from medqa.errors import StepError

DESKTOP = {"viewport": {"width": 1280, "height": 560}}
PHONE = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 2, "has_touch": True}
SHOTS = (
    ("page.png", DESKTOP, "both", "饮酒以后可以服用西地那非吗？"),
    ("page_phone.png", PHONE, "tuned", "饮酒以后服用了西地那非，现在胸口压榨样疼，出冷汗"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = cli.parser(__doc__)
    parser.add_argument("--folder", type=Path, default=paths.project_root() / ".github")
    folder = parser.parse_args(argv).folder
    from playwright.sync_api import sync_playwright

    with serving() as address, sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for name, screen, side, question in SHOTS:
            page = browser.new_context(locale="zh-CN", **screen).new_page()
            page.goto(address)
            page.locator(f"label:has(input[value={side}])").click()
            page.locator("#question").fill(question)
            page.locator("#question").press("Enter")
            page.locator(".turn button:text-is('重新回答'):enabled").wait_for()
            page.locator("#question").blur()
            print(save(page.screenshot(), folder / name))
        browser.close()


@contextmanager
def serving() -> Iterator[str]:
    """Runs the server on a free port; yields the page's address, or raises a StepError."""
    command = [sys.executable, "scripts/serve.py", "configs/tiny/serve.yaml", "port=0"]
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=paths.project_root(), **pipe) as server:
        for line in server.stdout or ():
            if found := re.search(r"page: (\S+)\)", line):
                break
        else:
            raise StepError("expected the server to start, and it did not; run: make demo")
        try:
            yield found[1]
        finally:
            server.send_signal(signal.SIGINT)


def save(picture: bytes, target: Path) -> str:
    """Writes a PNG in few colours; returns its name and size."""
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)
    return f"{paths.shown(target)}: {target.stat().st_size // 1000} kB"


if __name__ == "__main__":
    cli.run(main)
