"""An exported model in 8 or 4 bits (bitsandbytes), and what that costs its answers.

LLM.int8() (Dettmers et al. 2022) and NF4 with quantised scales (QLoRA, Dettmers et al. 2023, the
setting of configs/*/qlora_sft.yaml). Embedding and output layer stay as they are.
"""

import gc
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medqa import provenance
from medqa.environment import defaults
from medqa.errors import CheckFailedError, ConfigError
from medqa.export import battery
from medqa.export.derived import accompany, take_texts
from medqa.files import atomic_folder, require_empty, sha256
from medqa.paths import shown

if TYPE_CHECKING:
    import torch

Bits = Literal[4, 8]
RECORD = "medqa_quantize.json"
ANSWER_TOKENS = 32
"""Where an answer is cut."""

LARGEST_DIFFERENCE: Mapping[Bits, float] = {8: 0.1, 4: 0.5}
LEAST_AGREEMENT: Mapping[Bits, float] = {8: 0.9, 4: 0.7}
"""Beyond these the result is taken for broken and not kept: a wrong scale or type, not a loss.

The trained tiny model: differences 0.016 and 0.09, agreement 100 %. Whether a model answers medical
questions worse is for ``make compare`` to say, not for these few prompts.
"""


@dataclass(frozen=True)
class Cost:
    """The quantised model against the model, at the positions of the model's own greedy answers.

    Attributes:
        difference: Root mean square of the logits' differences, in units of their spread.
        agreement: Share of positions at which the likeliest token is the same.
        divergence: Mean Kullback-Leibler divergence of the next token's distribution, in nats.
        positions: How many there were.
    """

    difference: float
    agreement: float
    divergence: float
    positions: int

    def __str__(self) -> str:
        """One line for the terminal."""
        return (
            f"logits differ by {self.difference:.2g} of their spread, same likeliest token at "
            f"{self.agreement:.1%} of {self.positions} positions, divergence {self.divergence:.2g}"
        )


def quantize(source: Path, target: Path, bits: Bits, *, overwrite: bool = False) -> Path:
    """Writes the quantised checkpoint, loads it again and compares it with the model.

    Args:
        source: What `merge.export` wrote.
        target: The folder to write.
        bits: 8 or 4.
        overwrite: Replace what was made from other inputs.

    Returns:
        `target`: safetensors that plain transformers loads where bitsandbytes is installed.

    Raises:
        ConfigError: bitsandbytes is not installed.
        TargetError: `target` holds something made from other inputs.
        CheckFailedError: It does not answer as the model does.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "quantize", ["the package bitsandbytes is not installed; run: pip install '.[quant]'"]
        )
    inputs, settings = provenance.model_digest(source), {"bits": bits}
    if provenance.is_current(target / RECORD, step="quantize", inputs=inputs, config=settings):
        sys.stdout.write(f"up to date: {shown(target)}\n")
        return target
    if not overwrite:
        require_empty(target)
    sys.stdout.write(f"quantising {shown(source)} to {bits} bits\n")
    sys.stdout.flush()
    with atomic_folder(target, overwrite=overwrite) as staging, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
        with defaults(TRANSFORMERS_VERBOSITY="error"):
            cost = _make(source, staging, bits)
        _finish(source, staging, bits, cost)
        files = sorted(file for file in staging.iterdir() if file.is_file())
        provenance.write(
            staging / RECORD,
            step="quantize",
            inputs=inputs,
            config=settings,
            outputs=files,
            sha256={file.name: sha256(file) for file in files},
            cost=asdict(cost),
            bitsandbytes=importlib.metadata.version("bitsandbytes"),
        )
    sys.stdout.write(f"{shown(target)}: {cost}\n")
    return target


def cost(model: "torch.Tensor", quantised: "torch.Tensor") -> Cost:
    """Returns what quantising costs.

    Args:
        model: Logits (positions, vocabulary) in float32.
        quantised: The same of the quantised model.

    Raises:
        CheckFailedError: They are not finite.
    """
    if not bool(quantised.isfinite().all()):
        raise CheckFailedError("the quantised model's logits are not finite; nothing was written")
    ours, theirs = quantised.log_softmax(-1), model.log_softmax(-1)
    return Cost(
        difference=(quantised - model).square().mean().sqrt().item() / model.std().item(),
        agreement=(quantised.argmax(-1) == model.argmax(-1)).float().mean().item(),
        divergence=(theirs.exp() * (theirs - ours)).sum(-1).mean().item(),
        positions=len(model),
    )


def require_sound(found: Cost, bits: Bits) -> None:
    """Raises CheckFailedError when the quantised model must be broken."""
    largest, least = LARGEST_DIFFERENCE[bits], LEAST_AGREEMENT[bits]
    if not (found.difference <= largest and found.agreement >= least):
        raise CheckFailedError(
            f"the model in {bits} bits does not answer as the model: {found} (at most {largest:g}, "
            f"at least {least:.0%}); nothing was written"
        )


def _make(source: Path, staging: Path, bits: Bits) -> Cost:
    """Saves the quantised model to `staging` and measures what was saved."""
    import torch
    from transformers import AutoConfig, BitsAndBytesConfig
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _load(source, device)
    answers = _answers(model, source)
    wanted = _logits(model, answers)
    del model
    gc.collect()
    settings: Any = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=AutoConfig.from_pretrained(source).dtype,
    )
    _load(source, device, quantization_config=settings).save_pretrained(staging)
    gc.collect()
    found = cost(wanted, _logits(_load(staging, device), answers))
    require_sound(found, bits)
    return found


def _load(folder: Path, device: str, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, device_map={"": device}, use_safetensors=True, dtype="auto", **options
    )
    return model.eval()


def _answers(model: Any, folder: Path) -> "list[tuple[torch.Tensor, int]]":
    """Returns the model's greedy answers with their prompts, and how long each prompt is."""
    import torch

    found = []
    for prompt in battery.encoded(folder):
        ids = torch.tensor([prompt], device=model.device)
        with torch.inference_mode():
            answer = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=ANSWER_TOKENS,
                do_sample=False,
            )
        found.append((answer, len(prompt)))
    return found


def _logits(model: Any, answers: "Sequence[tuple[torch.Tensor, int]]") -> "torch.Tensor":
    """Returns (positions, vocabulary): what follows each token before one of an answer."""
    import torch

    with torch.inference_mode():
        parts = [model(ids).logits[0, start - 1 : -1].float().cpu() for ids, start in answers]
    return torch.cat(parts)


def _finish(source: Path, staging: Path, bits: Bits, found: Cost) -> None:
    take_texts(source, staging)
    accompany(
        source,
        staging,
        zh=f"{bits} 位量化版（bitsandbytes）。与原模型相比：logits 相差其标准差的 "
        f"{found.difference:.2g}，{found.positions} 个位置中首选词相同的占 {found.agreement:.1%}。",
        en=f"The model in {bits} bits (bitsandbytes). Against it: {found}.",
    )
