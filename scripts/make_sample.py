"""Write the synthetic sample data again from its table, data/sample/facts.yaml.

python scripts/make_sample.py
"""

from collections.abc import Sequence

from medqa import cli, paths


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    cli.parser(__doc__).parse_args(argv)
    from medqa.data import sample

    folder = paths.resolve("data/sample")
    for file in sample.write(folder / "facts.yaml", folder):
        print(paths.shown(file))


if __name__ == "__main__":
    cli.run(main)
