"""Lets base and tuned model sit the examinations of a YAML: CMMLU, C-Eval, CMB-Exam, CMExam.

    python scripts/evaluate.py configs/tiny/evaluate.yaml [key=value ...] [--overwrite]
    python scripts/evaluate.py configs/chatglm3-6b/evaluate.yaml --hub modelscope

Prints the shares of right answers with their intervals; writes answers.jsonl and report.json. A
published set that is absent under data/raw/exams is fetched first. Cut off, it goes on where it
stopped. Needs lm-eval, the extra medqa[eval].
"""

import os
from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = cli.config_parser(__doc__)
    parser.add_argument("--hub", choices=("huggingface", "modelscope"), default="huggingface")
    args = parser.parse_intermixed_args(argv)
    from medqa.compare.exams_plan import absent

    for name in absent(args.config, args.overrides):
        from medqa.hub import download_exam

        download_exam(name, args.hub)
    # Everything is here now: nothing is looked up, and ours is the only progress.
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1"}
    from medqa.compare.exams import evaluate

    print(evaluate(args.config, args.overrides, overwrite=args.overwrite))


if __name__ == "__main__":
    cli.run(main)
