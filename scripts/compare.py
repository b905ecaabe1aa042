"""Ask base and tuned model the same questions: one loaded model, adapter off and on.

    python scripts/compare.py configs/tiny/compare.yaml [key=value ...] [--overwrite]
    python scripts/compare.py configs/chatglm3-6b/compare.yaml --question 饮酒以后可以服用西地那非吗

With --question only the answers are printed; without it the report is written too, and the exit
code is 1 where the gate of the YAML does not hold.
"""

from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = cli.config_parser(__doc__)
    parser.add_argument(
        "--question", action="append", metavar="TEXT", help="ask only this (may be repeated)"
    )
    args = parser.parse_intermixed_args(argv)
    from medqa.compare import run

    if args.question:
        print(run.ask(args.config, args.overrides, args.question))
    else:
        found = run.compare(args.config, args.overrides, overwrite=args.overwrite)
        print(found.text, flush=True)
        found.require_passed()


if __name__ == "__main__":
    cli.run(main)
