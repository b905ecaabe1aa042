"""Turns an original ChatGLM3 checkpoint into native GLM, which needs no remote code.

python scripts/import_model.py SOURCE TARGET [--dtype bfloat16] [--hub modelscope]

    SOURCE  a folder, or a hub id such as zai-org/chatglm3-6b: ChatGLM3-6B, -base, -32k,
            ChatGLM2-6B or CodeGeeX2-6B in their original layout
    TARGET  the folder to write, for example models/chatglm3-6b

It ends by checking the written model; nothing is at TARGET unless every check has passed.
"""

from collections.abc import Sequence
from pathlib import Path

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Imports the model that the command line names."""
    parser = cli.parser(__doc__)
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET", type=Path)
    dtypes = ("keep", "bfloat16", "float16", "float32")
    parser.add_argument("--dtype", choices=dtypes, default="keep")
    parser.add_argument("--hub", choices=("huggingface", "modelscope"), default="huggingface")
    cli.add_overwrite(parser)
    given = parser.parse_args(argv)
    from medqa import hub
    from medqa.model import importer, original

    local = original.local_folder(given.source)
    source = local or hub.download_model(given.source, given.hub)
    options = {"dtype": given.dtype, "origin": given.source, "overwrite": given.overwrite}
    done = importer.import_model(source, given.target, **options)
    lines = ("up to date:",) if done.current else (*done.lines, "imported:")
    print("\n".join(lines), given.target)


if __name__ == "__main__":
    cli.run(main)
