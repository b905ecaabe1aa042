"""What every script shares: its parser, and errors as one line with an exit code."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from medqa.errors import MedqaError, PreflightError
from medqa.paths import config_file

Main = Callable[[Sequence[str] | None], None]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose ``--help`` is the script's own docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def config_parser(doc: str | None, *, writes: bool = True) -> argparse.ArgumentParser:
    """Returns a parser for ``CONFIG [key=value ...]``, with ``[--overwrite]`` for what writes.

    It finds the file, so that a mistyped name is said before anything else is imported.
    """
    result = parser(doc)
    result.add_argument("config", metavar="CONFIG", type=config_file, help="the YAML of this run")
    result.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],
        help="values that replace the YAML's",
    )
    if writes:
        add_overwrite(result)
    return result


def add_overwrite(to: argparse.ArgumentParser) -> None:
    """Adds the flag that every writing step has."""
    to.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a result that was made from other inputs",
    )


def run(main: Main, argv: Sequence[str] | None = None) -> None:
    """Runs a script's `main`; ends the process with its exit code.

    A MedqaError becomes one line on stderr, a PreflightError one for each problem, and its own exit
    code (2 the caller's mistake, 1 a failure); Ctrl-C ends with 130 and a reader that went away
    (``| head``) with 141, as in shells.
    """
    try:
        main(argv)
        sys.stdout.flush()
    except MedqaError as error:
        told = str(error).splitlines() if isinstance(error, PreflightError) else [str(error)]
        for line in told:
            sys.stderr.write(f"error: {' '.join(line.split())}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command again to go on\n")
        sys.exit(130)
    except BrokenPipeError:
        # What is still in the buffer would be written, and fail again, at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
