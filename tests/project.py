"""The project folder in which ``make demo`` runs for the tests."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """A project folder of its own beside the checkout: same code and configs, nothing made yet."""

    root: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=os.environ | {"MEDQA_ROOT": str(self.root)},
            capture_output=True,
            text=True,
            timeout=800,
        )
        assert not check or done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done

    def make(self, *words: str) -> str:
        environment = Path(sys.prefix)
        # The environment that runs the tests is the one to use, however it was installed.
        installed = ("-o", str(environment / ".installed"), f"VENV={environment}")
        return self.run("make", *installed, *words).stdout

    def script(self, name: str, *words: str, check: bool = True) -> str:
        done = self.run(sys.executable, f"scripts/{name}.py", *words, check=check)
        return done.stdout + done.stderr

    def json(self, path: str) -> dict:
        return json.loads((self.root / path).read_text(encoding="utf-8"))

    def lines(self, path: str) -> list[dict]:
        text = (self.root / path).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]
