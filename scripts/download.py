"""Fetches ChatGLM3-6B, data sets or examinations; goes on where a run that was cut off stopped.

python scripts/download.py model|data|exams [--hub huggingface|modelscope] [NAME ...]

    model   into models/<name>-original; NAME is chatglm3-6b (default), chatglm3-6b-base,
            chatglm3-6b-32k or any owner/name of a ChatGLM3 in its original layout
    data    into data/raw/<name>; NAME is one of the Huatuo sets (default: all that hold text)
    exams   into data/raw/exams/<name>; NAME is cmmlu, ceval, cmb or cmexam (default: all)

A mirror of Hugging Face: HF_ENDPOINT=https://mirror python scripts/download.py model
"""

from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Downloads what the command line names."""
    parser = cli.parser(__doc__)
    parser.add_argument("kind", choices=("model", "data", "exams"))
    parser.add_argument("names", metavar="NAME", nargs="*", help="default: see above")
    parser.add_argument("--hub", choices=("huggingface", "modelscope"), default="huggingface")
    given = parser.parse_args(argv)
    from medqa import hub

    if given.kind == "model":
        for name in given.names or ["chatglm3-6b"]:
            hub.download_model(name, given.hub)
    elif given.kind == "exams":
        for name in given.names or hub.EXAMS:
            hub.download_exam(name, given.hub)
    else:
        for name in given.names or hub.DATA:
            hub.download_data(name, given.hub)


if __name__ == "__main__":
    cli.run(main)
