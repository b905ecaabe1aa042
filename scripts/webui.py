"""Starts LlamaBoard, LLaMA-Factory's web UI, with our model, template and data filled in.

python scripts/webui.py [--host 127.0.0.1] [--port 7860] [--model models/chatglm3-6b]

Needs an imported model: make demo (tiny) or make model (ChatGLM3-6B). On the page, 配置路径
medqa.yaml and 载入训练参数 load the recipe of configs/chatglm3-6b (medqa-tiny.yaml: the tiny one).
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
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("GRADIO_SERVER_PORT", "7860"),
        help="port to listen on (default: GRADIO_SERVER_PORT, else 7860)",
    )
    parser.add_argument("--model", help="imported model (default: the 6B, else the tiny one)")
    given = parser.parse_args(argv)
    from medqa.train import webui

    webui.launch(given.host, given.port, given.model)


if __name__ == "__main__":
    cli.run(main)
