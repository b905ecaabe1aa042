"""Writes the untrained prefix that a prefix-tuning recipe begins from; seconds, no weights read.

    python scripts/begin_prefix.py configs/chatglm3-6b/prefix_sft.yaml [key=value ...] [--overwrite]
    python scripts/begin_prefix.py configs/tiny/prefix_sft.yaml --virtual-tokens 64

Base, folder and seed are the recipe's: model_name_or_path, adapter_name_or_path, seed.
Next: python scripts/train.py with the same YAML
"""

from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = cli.config_parser(__doc__)
    length = "length of the prefix (default: 128, as in ChatGLM3's own ptuning_v2.yaml)"
    parser.add_argument("--virtual-tokens", type=int, default=128, help=length)
    args = parser.parse_intermixed_args(argv)
    from medqa.train.prefix import begin

    tokens = args.virtual_tokens
    print(begin(args.config, args.overrides, virtual_tokens=tokens, overwrite=args.overwrite))


if __name__ == "__main__":
    cli.run(main)
