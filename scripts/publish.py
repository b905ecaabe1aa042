"""Quantises an exported model, writes it as GGUF, sends it to a hub: the keys of CONFIG say what.

python scripts/publish.py configs/chatglm3-6b/publish.yaml [key=value ...] [--dry-run] [--overwrite]

Needs what make export wrote. Token: HF_TOKEN or MODELSCOPE_API_TOKEN. For example, what would go:
python scripts/publish.py configs/tiny/publish.yaml hub=huggingface repo=me/tiny-med --dry-run
"""

from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Makes and sends what CONFIG describes."""
    parser = cli.config_parser(__doc__)
    parser.add_argument(
        "--dry-run", action="store_true", help="make and send nothing; list what would be sent"
    )
    given = parser.parse_intermixed_args(argv)
    from medqa.export import publish
    from medqa.hub.upload import upload

    publish.publish(
        given.config,
        given.overrides,
        upload,
        dry_run=given.dry_run,
        overwrite=given.overwrite,
    )


if __name__ == "__main__":
    cli.run(main)
