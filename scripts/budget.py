"""Predict memory and time of a recipe before it runs; no GPU, no weights, no torch.

    python scripts/budget.py configs/chatglm3-6b/lora_sft.yaml --gpu-memory 24 [key=value ...]
    python scripts/budget.py configs/chatglm3-6b/full_sft.yaml --gpu-memory 80 --cards 8

Training, evaluation, compare, merge and serving, term by term; the nearest setting that fits and
the fastest one; hours for an epoch of the recipe's own data.
"""

from collections.abc import Sequence

from medqa import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = cli.config_parser(__doc__, writes=False)
    memory = "memory of the card in GB (default: 24)"
    parser.add_argument("--gpu-memory", type=float, default=24.0, metavar="GB", help=memory)
    peak = "its dense peak in the recipe's number format (default: 165, an RTX 4090)"
    parser.add_argument("--tflops", type=float, default=165.0, help=peak)
    share = "share of the peak that training reaches (default: 0.45)"
    parser.add_argument("--mfu", type=float, default=0.45, help=share)
    parser.add_argument("--cards", type=int, default=1, help="cards that train (default: 1)")
    args = parser.parse_intermixed_args(argv)
    from medqa.train.forecast import Card, forecast

    card = Card(args.gpu_memory, args.tflops, args.mfu, args.cards)
    print(forecast(args.config, args.overrides, card))


if __name__ == "__main__":
    cli.run(main)
