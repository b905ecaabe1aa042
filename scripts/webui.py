"""Starts LlamaBoard, LLaMA-Factory's web UI, with our model, template, recipe and data filled in.

    python scripts/webui.py [--host 127.0.0.1] [--port 7860] [--model models/chatglm3-6b]
    python scripts/webui.py --port 6006 --root-path /proxy/6006

Needs an imported model: make demo (tiny) or make model (ChatGLM3-6B). Ends with Ctrl-C, and the
training that the page has started ends with it.
"""

import os
from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Serves the page until Ctrl-C."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to listen on (default: GRADIO_SERVER_NAME, else this machine only)",
    )
    port = os.environ.get("GRADIO_SERVER_PORT", "7860")
    parser.add_argument("--port", type=int, default=port, help=f"port to listen on ({port})")
    parser.add_argument(
        "--root-path",
        default=os.environ.get("GRADIO_ROOT_PATH", ""),
        help="where a reverse proxy shows the page: /proxy/6006, or its whole address where the "
        "proxy does not say it in X-Forwarded-Host (default: GRADIO_ROOT_PATH, else no proxy)",
    )
    parser.add_argument("--model", help="imported model (default: the 6B, else the tiny one)")
    given = parser.parse_args(argv)
    from medqa.train import webui

    webui.launch(given.host, given.port, given.model, given.root_path)


if __name__ == "__main__":
    cli.run(main)
