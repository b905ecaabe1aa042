"""Put what the last `make demo` printed, and a picture of its report, into both READMEs.

    make demo && python scripts/bench/readme.py

The picture needs Chromium and a Chinese font; without Chromium the old one stays.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence

from medqa import cli, paths


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    cli.parser(__doc__).parse_args(argv)
    from medqa.compare import run

    root = paths.project_root()
    shown = run.compare("configs/tiny/compare.yaml").text.rpartition("\nup to date")[0]
    block = f"<!-- demo -->\n```\n{shown}\n```\n<!-- /demo -->"
    for name in ("README.md", "README_zh.md"):
        text = (root / name).read_text(encoding="utf-8")
        new = re.sub(r"<!-- demo -->.*?<!-- /demo -->", lambda _: block, text, flags=re.DOTALL)
        (root / name).write_text(new, encoding="utf-8")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        picture = f"--screenshot={root / '.github/report.png'}"
        page = (root / "outputs/compare/tiny/report.html").as_uri()
        command = [chromium, *flags, "--window-size=1000,1180", picture, page]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    cli.run(main)
