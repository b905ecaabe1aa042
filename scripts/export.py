"""Merges a trained adapter into its base model and checks that the result answers as before.

python scripts/export.py configs/chatglm3-6b/export.yaml [key=value ...] [--overwrite]

Every weight is computed again, and logits and greedy answers are compared, before the result gets
its name. Run it again after compare: the model card gets the figures, nothing is merged again.

Needs the base (make model) and a finished training (make train). For example, another adapter:
python scripts/export.py configs/tiny/export.yaml adapter_name_or_path=saves/tiny/lora/other
"""

from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Exports what CONFIG describes."""
    given = cli.config_parser(__doc__).parse_intermixed_args(argv)
    from medqa.export import merge

    merge.export(given.config, given.overrides, overwrite=given.overwrite)


if __name__ == "__main__":
    cli.run(main)
