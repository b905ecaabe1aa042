"""Prints training rows of a converted data set as the model will see them.

    python scripts/preview_data.py configs/data/sample.yaml [--count 10]
    python scripts/preview_data.py huatuo

The format is ChatGLM3's; the part that is trained is green, or between brackets in a log. Tokens
are counted and cuts shown where the tokenizer that the YAML names is there.
"""

import os
import sys
from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = cli.parser(__doc__)
    parser.add_argument("data", metavar="CONFIG|NAME", help="a data YAML, or a data set's name")
    parser.add_argument("--count", type=int, default=10, metavar="N", help="rows (10)")
    given = parser.parse_args(argv)
    if given.count < 1:
        parser.error(f"--count must be at least 1, found {given.count}")
    from medqa.data.preview import preview

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(preview(given.data, given.count, colour=colour))


if __name__ == "__main__":
    cli.run(main)
