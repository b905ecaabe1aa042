"""Look at a training recipe without training: settings, model, data, template, card, disk.

    python scripts/preflight.py configs/chatglm3-6b/lora_sft.yaml [key=value ...]
    python scripts/preflight.py configs/tiny/lora_sft.yaml cutoff_len=128

It prints everything at once: what is right, doubtful or wrong, each with its cure, and three rows
as they would be trained. Exit code 2 if anything is wrong. Every training does this first.

Next: python scripts/train.py
"""

import sys
from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = cli.config_parser(__doc__, writes=False)
    args = parser.parse_intermixed_args(argv)
    from medqa.train.preflight import inspect, report

    look = inspect(args.config, args.overrides)
    print(report(look, colour=sys.stdout.isatty()))
    if look.failed:
        sys.exit(2)


if __name__ == "__main__":
    cli.run(main)
