"""One line and an exit code, never a traceback."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from medqa import cli
from medqa.errors import CheckFailedError, ConfigError, MedqaError, MissingInputError, TargetError

SCRIPTS = sorted(p.name for p in (Path(__file__).parents[1] / "scripts").glob("*.py"))
TAKES_CONFIG = (
    "begin_prefix",
    "budget",
    "compare",
    "convert",
    "evaluate",
    "export",
    "make_tiny",
    "publish",
    "serve",
    "train",
)


def launch(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MedqaError("it failed"), 1),
        (CheckFailedError("it failed"), 1),
        (TargetError("it failed"), 2),
    ],
    ids=repr,
)
def test_an_error_is_one_line(
    error: MedqaError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: Sequence[str] | None) -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        cli.run(main, [])
    assert end.value.code == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: it failed\n")


def test_several_lines_become_one(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: Sequence[str] | None) -> None:
        raise ConfigError("a.yaml", ["while parsing\n  line 3\n\n", "second"])

    with pytest.raises(SystemExit):
        cli.run(main, [])
    assert capsys.readouterr().err == "error: a.yaml: while parsing line 3 ; second\n"


def test_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: Sequence[str] | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        cli.run(main, [])
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


def test_other_errors_keep_their_traceback() -> None:
    def main(argv: Sequence[str] | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(main, [])


def test_a_good_end(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Sequence[str] | None] = []
    cli.run(seen.append, ["a"])
    assert seen == [["a"]]
    assert capsys.readouterr() == ("", "")


def test_config_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").touch()
    parser = cli.config_parser("What it does.\n\n    how it is launched\n")
    given = parser.parse_intermixed_args(["a.yaml", "--overwrite", "seed=1", "x.y=2"])
    assert (given.config, given.overrides, given.overwrite) == (
        Path("a.yaml"),
        ["seed=1", "x.y=2"],
        True,
    )
    assert not parser.parse_args(["a.yaml"]).overwrite
    assert "What it does.\n\n    how it is launched\n" in parser.format_help()
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["a.yaml", "--over"])  # no abbreviations: a new flag would change them
    assert end.value.code == 2
    with pytest.raises(MissingInputError, match=r"b\.yaml does not exist"):
        parser.parse_args(["b.yaml"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(root: Path, script: str) -> None:
    done = launch(root, f"scripts/{script}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"python scripts/{script}" in done.stdout, "the launch line"
    assert done.stderr == ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(root: Path, script: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['scripts/{script}', '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    loaded = set(launch(root, "-c", code).stderr.split())
    assert "medqa.cli" in loaded
    heavy = {"torch", "transformers", "llamafactory", "pydantic", "yaml", "rich", "numpy", "polars"}
    assert not loaded & heavy


@pytest.mark.parametrize("script", [f"{name}.py" for name in TAKES_CONFIG])
@pytest.mark.parametrize("problem", ["absent", "misspelt", "no override"])
def test_a_config_error(root: Path, script: str, problem: str) -> None:
    config = {
        "begin_prefix.py": "configs/tiny/prefix_sft.yaml",
        "budget.py": "configs/tiny/lora_sft.yaml",
        "compare.py": "configs/tiny/compare.yaml",
        "convert.py": "configs/data/sample.yaml",
        "evaluate.py": "configs/tiny/evaluate.yaml",
        "export.py": "configs/tiny/export.yaml",
        "make_tiny.py": "configs/tiny/make_tiny.yaml",
        "publish.py": "configs/tiny/publish.yaml",
        "serve.py": "configs/tiny/serve.yaml",
        "train.py": "configs/tiny/lora_sft.yaml",
    }[script]
    arguments = {
        "absent": ["configs/tiny/absent.yaml"],
        "misspelt": [config, "misspelt_key=1"],
        "no override": [config, "seed"],
    }[problem]
    says = {
        "absent": "configs/tiny/absent.yaml does not exist; found: ",
        "misspelt": "unknown key 'misspelt_key'",
        "no override": "override 'seed' is not key=value",
    }[problem]
    started = time.monotonic()
    done = launch(root, f"scripts/{script}", *arguments)
    seconds = time.monotonic() - started
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert seconds < 3, "heavy imports come after the config (the promise: scripts/bench)"


def test_the_scripts_that_take_a_config_are_these(root: Path) -> None:
    found = [
        p.stem
        for p in sorted(root.glob("scripts/*.py"))
        if "config_parser" in p.read_text(encoding="utf-8")
    ]
    found.remove("preflight")  # it tells a misspelt key among all that it finds
    assert tuple(found) == TAKES_CONFIG


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """As with ``| head``."""
    code = "from medqa import cli; cli.run(lambda _: print('line\\n' * 100_000))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""
