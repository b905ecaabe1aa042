"""Whether a merged model answers as its base with the adapter does: logits, and greedy answers.

Merging adds the adapter's product to weights of limited precision, so the logits move a little;
an adapter that was left out, applied twice or merged into another base moves them a lot.
"""

import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa.errors import CheckFailedError
from medqa.export import battery

if TYPE_CHECKING:
    import torch

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Data type to the largest root-mean-square difference of the logits, in units of their spread.

Measured on random models of 2 to 12 layers with right merges: at most 1.1e-6, 1.7e-3 and 1.3e-2.
"""

NEAR_TIE = 4
"""Times TOLERANCE: so far may two logits move against each other where the models say different
tokens. Two movements within the tolerance differ by that at three standard deviations."""

POSITIONS = 32
"""The last positions of a prompt whose logits are compared: with those of the answers 0.6 GB in all
for a vocabulary of 65,024 and 16 prompts."""

ANSWER_TOKENS = 24
"""Where an answer is cut."""


@dataclass(frozen=True)
class Logits:
    """Differences of logits over the prompts, in units of their standard deviation.

    `difference` is merged against adapter, `effect` adapter against base, both root mean square;
    `largest` is the largest single difference in logits; `agreement` the share of positions whose
    likeliest token is the same; `spread` the standard deviation itself.
    """

    difference: float
    effect: float
    largest: float
    agreement: float
    spread: float
    tolerance: float
    dtype: str

    @property
    def ok(self) -> bool:
        """Within tolerance, and nearer to the adapter than to the base where these differ."""
        near = self.difference <= self.effect / 2 or self.effect <= self.tolerance
        return self.difference <= self.tolerance and near

    def __str__(self) -> str:
        """One line for the terminal."""
        return (
            f"merged against adapter {self.difference:.2g} of the logits' spread (at most "
            f"{self.tolerance:g} for {self.dtype}; the adapter itself moves them by "
            f"{self.effect:.2g}), largest {self.largest:.2g}, same likeliest token at "
            f"{self.agreement:.1%} of positions"
        )


@dataclass(frozen=True)
class Answers:
    """Greedy answers of merged model and adapter, compared token by token.

    `equal` of `prompts` are the same. Where two differ, both models had read the same text up to
    the first token that differs, and what comes after it is another text. `moved` is the most that
    the logits of two such tokens have moved against each other, in units of the logits' spread;
    it is no less than the margin by which either model preferred its own.
    """

    prompts: int
    equal: int
    moved: float
    allowed: float

    @property
    def ok(self) -> bool:
        """All equal, or else each at a near-tie that the data type's rounding explains."""
        return self.equal == self.prompts or 0 < self.moved <= self.allowed

    def __str__(self) -> str:
        """One line for the terminal."""
        line = f"{self.equal} of {self.prompts} greedy answers equal, token by token"
        if self.equal < self.prompts:
            line += (
                f"; in the others two logits moved against each other by {self.moved:.2g} of the "
                f"spread (at most {self.allowed:g})"
            )
        return line


@dataclass(frozen=True)
class Parity:
    """Both comparisons."""

    logits: Logits
    answers: Answers

    @property
    def record(self) -> dict[str, Any]:
        """The form in which it is recorded."""
        return {
            "parity": asdict(self.logits) | {"prompts": self.answers.prompts},
            "answers": asdict(self.answers) | {"tokens": ANSWER_TOKENS},
        }


@dataclass(frozen=True)
class Said:
    """What a model makes of a prompt, in float32.

    Attributes:
        prompt: Logits of the prompt's last POSITIONS, (positions, vocabulary).
        ids: The greedy answer, its end token included.
        logits: Those of which each of `ids` is the largest, (ids, vocabulary).
    """

    prompt: "torch.Tensor"
    ids: list[int]
    logits: "torch.Tensor"


def check(base: Path, adapter: Path, merged: Path, device: str) -> Parity:
    """Loads both, one after the other, and compares their logits and greedy answers.

    One copy of the weights is in memory at a time.

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
    prompts = battery.encoded(merged)
    dtype = _dtype(merged)
    without, tuned = _of_adapter(base, adapter, prompts, dtype, where)
    ours = _of_merged(merged, prompts, dtype, where)
    off, on, one = (_together(said) for said in (without, tuned, ours))
    found = logits(off, on, one, str(dtype).removeprefix("torch."))
    parity = Parity(found, answers(tuned, ours, found))
    for part in (parity.logits, parity.answers):
        if not part.ok:
            raise CheckFailedError(
                f"the merged model does not answer as the base with its adapter: {part}; "
                "nothing was written"
            )
    return parity


def logits(
    base: "torch.Tensor", adapter: "torch.Tensor", merged: "torch.Tensor", dtype: str
) -> Logits:
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

    return Logits(
        difference=distance(merged, adapter),
        effect=distance(adapter, base),
        largest=(merged - adapter).abs().max().item(),
        agreement=(merged.argmax(-1) == adapter.argmax(-1)).float().mean().item(),
        spread=spread,
        tolerance=TOLERANCE[dtype],
        dtype=dtype,
    )


def answers(adapter: Sequence[Said], merged: Sequence[Said], found: Logits) -> Answers:
    """Returns how far the answers are the same; in float32 none may differ."""
    equal, moved = 0, 0.0
    for one, other in zip(adapter, merged, strict=True):
        if one.ids == other.ids:
            equal += 1
            continue
        place = next(n for n, (a, b) in enumerate(zip(one.ids, other.ids, strict=False)) if a != b)
        mine, its = one.ids[place], other.ids[place]
        before, after = (said.logits[place, [mine, its]].tolist() for said in (one, other))
        moved = max(moved, (before[0] - before[1] + after[1] - after[0]) / found.spread)
    exact = found.dtype == "float32"
    allowed = 0.0 if exact else NEAR_TIE * found.tolerance
    return Answers(prompts=len(adapter), equal=equal, moved=moved, allowed=allowed)


def _dtype(folder: Path) -> "torch.dtype":
    import torch
    from transformers import AutoConfig

    dtype: Any = AutoConfig.from_pretrained(folder).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _together(said: Sequence[Said]) -> "torch.Tensor":
    import torch

    return torch.cat([one.prompt for one in said])


def _of_adapter(
    base: Path, adapter: Path, prompts: Sequence[list[int]], dtype: Any, device: str
) -> tuple[list[Said], list[Said]]:
    from peft import PeftModel

    model = PeftModel.from_pretrained(_load(base, dtype, device), adapter).eval()
    tuned = [_said(model, prompt) for prompt in prompts]
    with model.disable_adapter():
        without = [_said(model, prompt, at_most=1) for prompt in prompts]
    del model
    gc.collect()  # its layers and their owners know each other
    return without, tuned


def _of_merged(folder: Path, prompts: Sequence[list[int]], dtype: Any, device: str) -> list[Said]:
    model = _load(folder, dtype, device)
    return [_said(model, prompt) for prompt in prompts]


def _load(folder: Path, dtype: Any, device: str) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    return model.to(device).eval()


def _said(model: Any, prompt: list[int], at_most: int = ANSWER_TOKENS) -> Said:
    """Reads a prompt and answers it greedily, alone, as ``generate`` does without sampling."""
    import torch

    end = model.generation_config.eos_token_id
    stops = {end} if isinstance(end, int) else set(end or ())
    ids: list[int] = []
    rows: list[torch.Tensor] = []
    with torch.inference_mode():
        read = torch.tensor([prompt], device=model.device)
        out = model(input_ids=read, logits_to_keep=POSITIONS, use_cache=True)
        kept = out.logits[0].float().cpu()
        rows.append(kept[-1])
        while True:
            ids.append(int(rows[-1].argmax()))
            if ids[-1] in stops or len(ids) == at_most:
                return Said(kept, ids, torch.stack(rows))
            read = torch.tensor([ids[-1:]], device=model.device)
            out = model(input_ids=read, past_key_values=out.past_key_values, use_cache=True)
            rows.append(out.logits[0, -1].float().cpu())
