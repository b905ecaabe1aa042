"""Loading a model, and what is said when it does not fit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medqa.errors import CheckpointError, StepError
from medqa.paths import resolve, shown


def model(folder: Path) -> Any:
    """Returns a native model on the card where there is one, in the type that it is stored in."""
    import torch
    from transformers import GlmForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return GlmForCausalLM.from_pretrained(folder, dtype="auto", device_map=device)


def tokenizer(folder: Path) -> Any:
    """Returns the tokenizer in a model's folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def require_switchable(config: Any, adapter: str) -> None:
    """Raises CheckpointError if the base alone cannot be had with the adapter loaded."""
    start = getattr(config, "init_lora_weights", True)
    if config.peft_type == "PREFIX_TUNING":
        return
    if config.is_prompt_learning or config.is_adaption_prompt:
        problem = f"is of the kind {config.peft_type.value}, which changes no layers"
        cure = "serve base and tuned model, and compare two endpoints"
    elif str(start).lower().startswith(("pissa", "olora", "corda", "loftq")):
        # PEFT takes the adapter's beginning out of the base when it loads it.
        problem = f"was begun as {start}, which changes the base's own weights"
        cure = "merge it (scripts/export.py) and give tuned_model_name_or_path in its stead"
    else:
        return
    raise CheckpointError(
        f"adapter {shown(resolve(adapter))} {problem}: it cannot be switched off; {cure}"
    )


def within_memory(work: Iterator[Any], batch_size: int) -> Iterator[Any]:
    """Yields from `work`; says in one line what to do where it does not fit the card."""
    import torch

    try:
        yield from work
    except torch.OutOfMemoryError:
        cure = (
            f"give batch_size={batch_size // 2}"
            if batch_size > 1
            else "free the card (nvidia-smi shows who uses it), or take a larger one"
        )
        raise StepError(
            f"batch_size {batch_size} is too much for the card's memory; {cure}"
        ) from None
