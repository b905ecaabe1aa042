"""Turns raw question-answer files into a LLaMA-Factory data set.

    python scripts/convert.py configs/data/sample.yaml
    python scripts/convert.py configs/data/huatuo.yaml max_rows=20000 --overwrite

Writes data/processed/NAME/{train,test,rejects}.jsonl and manifest.json, and enters NAME_train and
NAME_test in data/dataset_info.json. Every pair of every raw row is in one of the three files.
"""

from collections.abc import Sequence

from medqa.cli import config_parser, run


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one conversion and prints its counts."""
    arguments = config_parser(__doc__).parse_intermixed_args(argv)
    from medqa.data.pipeline import convert

    print(convert(arguments.config, arguments.overrides, overwrite=arguments.overwrite))


if __name__ == "__main__":
    run(main)
