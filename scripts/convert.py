"""Turns raw rows (pairs, preferences, text) into a LLaMA-Factory data set.

    python scripts/convert.py configs/data/sample.yaml
    python scripts/convert.py configs/data/huatuo.yaml max_rows=20000 --overwrite

Writes into data/processed/NAME the splits (train, test, val when asked), rejects.jsonl,
manifest.json, report.html and a data set card, and enters NAME_train and NAME_test in
data/dataset_info.json. Every pair of every raw row is in a split or in rejects.jsonl. A source that
names its `hub` is fetched first where it is absent. Cut off, it goes on from its finished shards.
"""

from collections.abc import Sequence

from medqa.cli import config_parser, run


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one conversion and prints its counts."""
    parser = config_parser(__doc__)
    parser.add_argument("--hub", choices=("huggingface", "modelscope"), default="huggingface")
    given = parser.parse_intermixed_args(argv)
    from medqa.data.recipe import absent

    for repository, file in absent(given.config, given.overrides):
        from medqa.hub import download_file

        download_file(repository, file, given.hub)
    from medqa.data.pipeline import convert

    print(convert(given.config, given.overrides, overwrite=given.overwrite))


if __name__ == "__main__":
    run(main)
