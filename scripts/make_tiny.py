"""Make the tiny ChatGLM3, in the original layout, that stands in for the 6B on a CPU.

    python scripts/make_tiny.py configs/tiny/make_tiny.yaml [key=value ...] [--overwrite]

Next: python scripts/import_model.py models/tiny-original models/tiny
"""

from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = cli.config_parser(__doc__).parse_intermixed_args(argv)
    from medqa import config
    from medqa.model import tiny

    settings = config.load(args.config, args.overrides, tiny.TinyConfig)
    print(tiny.make(settings, overwrite=args.overwrite))


if __name__ == "__main__":
    cli.run(main)
