"""How long every script takes to answer `--help` and a mistake in its config.

python scripts/bench/startup.py [--limit 0.5]

Prints the best of five, in seconds; exits with 1 if one is over the limit. The best, because what
else the machine does can only make it slower; run it on a machine that does little else.
"""

import subprocess
import sys
import time
from collections.abc import Sequence

from medqa import cli
from medqa.errors import CheckFailedError
from medqa.paths import project_root

RUNS = 5
# Without preflight, which says what else is wrong, too, and so takes its eight seconds.
CONFIGS = {
    "begin_prefix": "configs/tiny/prefix_sft.yaml",
    "budget": "configs/tiny/lora_sft.yaml",
    "compare": "configs/tiny/compare.yaml",
    "evaluate": "configs/tiny/evaluate.yaml",
    "convert": "configs/data/sample.yaml",
    "export": "configs/tiny/export.yaml",
    "make_tiny": "configs/tiny/make_tiny.yaml",
    "publish": "configs/tiny/publish.yaml",
    "serve": "configs/tiny/serve.yaml",
    "train": "configs/tiny/lora_sft.yaml",
}
COLUMNS = ("--help", "absent config", "misspelt key")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table.

    Raises:
        CheckFailedError: A script was over the limit, or ended with another code than it should.
    """
    parser = cli.parser(__doc__)
    parser.add_argument("--limit", type=float, default=0.5, help="seconds (default: 0.5)")
    limit = parser.parse_args(argv).limit
    scripts = sorted(path.stem for path in (project_root() / "scripts").glob("*.py"))
    print("| script | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * len(COLUMNS))
    slow = []
    for name in scripts:
        cells = [seconds(name, "--help", code=0)]
        if name in CONFIGS:
            cells.append(seconds(name, "configs/tiny/absent.yaml", code=2))
            cells.append(seconds(name, CONFIGS[name], "misspelt_key=1", code=2))
        slow += [name for cell in cells if cell > limit]
        texts = [f"{cell:.2f}" for cell in cells] + [""] * (len(COLUMNS) - len(cells))
        print(f"| {name} | " + " | ".join(texts) + " |", flush=True)
    if slow:
        raise CheckFailedError(f"expected at most {limit} s, but slower: {', '.join(set(slow))}")


def seconds(script: str, *arguments: str, code: int) -> float:
    """Returns the shortest of some runs of ``scripts/<script>.py`` that must end with `code`."""
    command = [sys.executable, f"scripts/{script}.py", *arguments]
    best = float("inf")
    for _ in range(RUNS):
        started = time.perf_counter()
        done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
        best = min(best, time.perf_counter() - started)
        if done.returncode != code:
            raise CheckFailedError(
                f"expected exit code {code} of {' '.join(command[1:])}, "
                f"found {done.returncode}: {done.stderr}"
            )
    return best


if __name__ == "__main__":
    cli.run(main)
