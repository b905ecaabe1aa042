"""The next token of each row: the likeliest, or a draw."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(eq=False)
class Sampler:
    """How one answer chooses its tokens.

    Attributes:
        temperature: 0 takes the likeliest token; above, the logits are divided by it.
        top_p: A draw is among the likeliest tokens that together have this probability (Holtzman
            et al. 2020, arXiv:1904.09751).
        seed: Makes the draws repeatable, as far as the logits are: those of a row differ in the
            last bits with what runs beside it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    _generator: Any = field(default=None, init=False)

    def draw(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Returns one token, () int64, for logits (vocabulary,)."""
        import torch

        if self._generator is None:
            self._generator = torch.Generator(logits.device)
            if self.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(self.seed)
        shares, tokens = (logits.float() / self.temperature).softmax(-1).sort(descending=True)
        # Those before it already have top_p: so the likeliest always stays.
        shares = shares.masked_fill(shares.cumsum(-1) - shares >= self.top_p, 0.0)
        return tokens[torch.multinomial(shares, 1, generator=self._generator)[0]]


def choose(logits: "torch.Tensor", samplers: Sequence[Sampler]) -> "torch.Tensor":
    """Returns the next token of each row, (rows,) int64, for logits (rows, vocabulary)."""
    chosen = logits.argmax(-1)
    for row, sampler in enumerate(samplers):
        if sampler.temperature > 0:
            chosen[row] = sampler.draw(logits[row])
    return chosen


def processors(config: Any) -> Any:
    """Returns what the model's own generation config asks for against repetition."""
    from transformers import (
        LogitsProcessorList,
        NoRepeatNGramLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
    )

    found = LogitsProcessorList()
    if config.repetition_penalty not in (None, 1.0):
        found.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    return found
