"""Serves a model as an OpenAI-compatible API, with a question page at its root.

    python scripts/serve.py configs/tiny/serve.yaml [key=value ...]
    python scripts/serve.py configs/tiny/serve.yaml port=6006 page=false

Ends with Ctrl-C or SIGTERM: answers under way are finished first. The key that clients must send is
taken from MEDQA_API_KEY; without one it listens on this machine only.
"""

from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until it is told to stop."""
    parser = cli.config_parser(__doc__, writes=False)
    given = parser.parse_intermixed_args(argv)
    from medqa.serve.launch import serve

    serve(given.config, given.overrides)


if __name__ == "__main__":
    cli.run(main)
