"""Whether a merged model answers as its base with the adapter does.

Merging adds the adapter's product to weights of limited precision, so the logits move a little;
an adapter that was left out, applied twice or merged into another base moves them a lot.
"""

import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa.errors import CheckFailedError

if TYPE_CHECKING:
    import torch

PROMPTS = (
    "饮酒以后可以服用西地那非吗",
    "高血压吃什么药",
    "孩子发烧到39度该怎么办？",
    "请介绍一下中国的首都。",
    "What is 12 + 30?",
)

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Data type to the largest root-mean-square difference of the logits, in units of their spread.

Measured on random models of 2 to 12 layers with right merges: at most 1.1e-6, 1.7e-3 and 1.3e-2.
"""


@dataclass(frozen=True)
class Parity:
    """Differences of logits over all positions of PROMPTS, in units of their standard deviation.

    `difference` is merged against adapter, `effect` adapter against base, both root mean square;
    `largest` is the largest single difference in logits; `agreement` the share of positions whose
    likeliest token is the same.
    """

    difference: float
    effect: float
    largest: float
    agreement: float
    tolerance: float
    dtype: str

    @property
    def ok(self) -> bool:
        """Within tolerance, and nearer to the adapter than to the base where these differ."""
        near = self.difference <= self.effect / 2 or self.effect <= self.tolerance
        return self.difference <= self.tolerance and near

    @property
    def record(self) -> dict[str, Any]:
        """The form in which it is recorded."""
        return asdict(self) | {"prompts": len(PROMPTS)}

    def __str__(self) -> str:
        """One line for the terminal."""
        return (
            f"merged against adapter {self.difference:.2g} of the logits' spread (at most "
            f"{self.tolerance:g} for {self.dtype}; the adapter itself moves them by "
            f"{self.effect:.2g}), largest {self.largest:.2g}, same likeliest token at "
            f"{self.agreement:.1%} of positions"
        )


def check(base: Path, adapter: Path, merged: Path, device: str) -> Parity:
    """Loads both, one after the other, and compares their logits.

    Args:
        base: The native checkpoint.
        adapter: The LoRA adapter in PEFT's layout.
        merged: What was made of both.
        device: ``cpu``, or ``auto`` for a GPU where there is one.

    Raises:
        CheckFailedError: They differ by more than rounding explains.
    """
    import torch

    where = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
    prompts = _encoded(merged)
    without, tuned = _adapter_logits(base, adapter, prompts, _dtype(merged), where)
    ours = _merged_logits(merged, prompts, where)
    parity = compare(without, tuned, ours, str(_dtype(merged)).removeprefix("torch."))
    if not parity.ok:
        raise CheckFailedError(
            f"the merged model does not answer as the base with its adapter: {parity}; "
            "nothing was written"
        )
    return parity


def compare(
    base: "torch.Tensor", adapter: "torch.Tensor", merged: "torch.Tensor", dtype: str
) -> Parity:
    """Returns the differences of logits.

    Args:
        base: (positions, vocabulary), float32.
        adapter: The same with the adapter on.
        merged: The same of the merged model.
        dtype: The data type of the merged weights, a key of TOLERANCE.
    """
    if not bool(merged.isfinite().all()):
        raise CheckFailedError("the merged model's logits are not finite; nothing was written")
    spread = adapter.std().item()

    def distance(a: "torch.Tensor", b: "torch.Tensor") -> float:
        return (a - b).square().mean().sqrt().item() / spread

    return Parity(
        difference=distance(merged, adapter),
        effect=distance(adapter, base),
        largest=(merged - adapter).abs().max().item(),
        agreement=(merged.argmax(-1) == adapter.argmax(-1)).float().mean().item(),
        tolerance=TOLERANCE[dtype],
        dtype=dtype,
    )


def _encoded(folder: Path) -> list["torch.Tensor"]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        for prompt in PROMPTS
    ]


def _dtype(folder: Path) -> "torch.dtype":
    import torch
    from transformers import AutoConfig

    dtype: Any = AutoConfig.from_pretrained(folder).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _adapter_logits(
    base: Path, adapter: Path, prompts: Sequence["torch.Tensor"], dtype: Any, device: str
) -> tuple["torch.Tensor", "torch.Tensor"]:
    from peft import PeftModel

    model = PeftModel.from_pretrained(_load(base, dtype, device), adapter).eval()
    tuned = _logits(model, prompts)
    with model.disable_adapter():
        without = _logits(model, prompts)
    del model
    gc.collect()
    return without, tuned


def _merged_logits(folder: Path, prompts: Sequence["torch.Tensor"], device: str) -> "torch.Tensor":
    return _logits(_load(folder, _dtype(folder), device), prompts)


def _load(folder: Path, dtype: Any, device: str) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    return model.to(device).eval()


def _logits(model: Any, prompts: Sequence["torch.Tensor"]) -> "torch.Tensor":
    import torch

    with torch.inference_mode():
        parts = [model(prompt.to(model.device)).logits[0].float().cpu() for prompt in prompts]
    return torch.cat(parts)
