"""Comparison of an imported model with figures that the original code computed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa.errors import CheckFailedError, CheckpointError
from medqa.paths import shown

if TYPE_CHECKING:
    import torch

FIGURES = ("input_ids", "attention_mask", "position_ids", "logits", "greedy", "loss")
TOLERANCE = 1e-5


def check_golden(folder: Path, file: Path, *, exact: bool) -> str:
    """Compares the written model, loaded plainly in float32, with the original code's figures.

    Args:
        folder: The written model; it is loaded whole, so this is for small ones.
        file: An ``.npz`` of ``input_ids``, ``attention_mask``, ``position_ids`` (rows, T),
            ``logits`` (rows, T, vocab; positions with mask 1 count), ``greedy`` (1, T + N: row 0,
            which is not padded, and its N tokens continued without stopping) and ``loss`` (row 0,
            labels = inputs).
        exact: The weights were not rounded to another dtype, so the figures must agree within
            `TOLERANCE`; else they are only reported.

    Raises:
        CheckpointError: `file` cannot be read.
        CheckFailedError: A figure differs.
    """
    import torch

    want = _read(file)
    with torch.inference_mode():
        model = _load(folder)
        logits = _logit_difference(model, want)
        equal, total = _greedy(model, want)
        loss = _loss_difference(model, want)
    line = (
        f"golden: max logit difference {float(f'{logits:.3g}')} (float32), "
        f"greedy {equal} of {total} equal, loss difference {float(f'{loss:.3g}')}"
    )
    if not exact:
        return f"{line} (weights rounded to another dtype: not judged)"
    # A comparison with NaN is false, so this also fails where a figure is NaN.
    if not (logits <= TOLERANCE and loss <= TOLERANCE and equal == total):
        raise CheckFailedError(f"{line}; expected at most {TOLERANCE} and all greedy tokens")
    return line


def _read(file: Path) -> "dict[str, torch.Tensor]":
    import zipfile

    import numpy as np
    import torch

    try:
        # numpy leaves a file that it opened itself open when it is broken.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as figures:
            return {name: torch.from_numpy(np.asarray(figures[name])) for name in FIGURES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{shown(file)} cannot be read as reference figures ({error}); remove or replace it"
        ) from None


def _load(folder: Path) -> Any:
    import torch
    from transformers import GenerationConfig, GlmForCausalLM
    from transformers.utils import logging

    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model: Any = GlmForCausalLM.from_pretrained(folder, dtype=torch.float32)
    finally:
        if shows_bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    # The figures were made without stopping at any token.
    model.generation_config = GenerationConfig(pad_token_id=0)  # type: ignore[no-untyped-call]
    return model.eval()


def _logit_difference(model: Any, want: "Mapping[str, torch.Tensor]") -> float:
    inputs = {name: want[name] for name in ("input_ids", "attention_mask", "position_ids")}
    logits = model(**inputs).logits
    if logits.shape != want["logits"].shape:
        raise CheckFailedError(
            f"golden: logits have shape {list(logits.shape)}, the figures' have "
            f"{list(want['logits'].shape)}"
        )
    return float((logits - want["logits"]).abs()[want["attention_mask"].bool()].max())


def _greedy(model: Any, want: "Mapping[str, torch.Tensor]") -> tuple[int, int]:
    """Returns how many of the continued tokens are equal, and how many there are."""
    prompt = want["input_ids"][:1]
    expected = want["greedy"][0, prompt.shape[1] :]
    made = model.generate(
        prompt,
        attention_mask=want["attention_mask"][:1],
        do_sample=False,
        max_new_tokens=len(expected),
    )[0, prompt.shape[1] :]
    return int((made == expected[: len(made)]).sum()), len(expected)


def _loss_difference(model: Any, want: "Mapping[str, torch.Tensor]") -> float:
    row = want["input_ids"][:1]
    return abs(float(model(input_ids=row, labels=row).loss) - float(want["loss"]))
