"""Train a recipe with LLaMA-Factory; a killed run goes on from its last whole checkpoint.

    python scripts/train.py configs/chatglm3-6b/lora_sft.yaml [key=value ...] [--overwrite]
    python scripts/train.py configs/tiny/lora_sft.yaml learning_rate=1e-3 output_dir=saves/tiny/try

Next: python scripts/export.py, python scripts/compare.py
"""

from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = cli.config_parser(__doc__).parse_intermixed_args(argv)
    from medqa.train.launch import train

    print(train(args.config, args.overrides, overwrite=args.overwrite))


if __name__ == "__main__":
    cli.run(main)
