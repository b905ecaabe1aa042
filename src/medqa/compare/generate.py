"""One loaded model that answers as both: adapter off is the base, adapter on is the tuned one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from medqa.errors import DataError
from medqa.paths import resolve

if TYPE_CHECKING:
    import torch

Side = Literal["base", "tuned"]
SIDES: tuple[Side, Side] = ("base", "tuned")


class Pair:
    """Base and tuned model in the memory of one.

    Args:
        model: Folder of the native base model.
        adapter: Folder of the PEFT adapter.
    """

    def __init__(self, model: str, adapter: str) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoTokenizer, GlmForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        base: Any = GlmForCausalLM.from_pretrained(resolve(model), dtype="auto")
        base.to(self.device)
        self.model: Any = PeftModel.from_pretrained(base, resolve(adapter)).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(resolve(model))
        self.stops = base.generation_config.eos_token_id

    def answers(
        self, side: Side, questions: Sequence[str], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[list[tuple[int, str]]]:
        """Answers greedily, batched by length.

        Yields:
            For each batch, the index of each question and its answer.
        """
        import torch

        prompts = [self._prompt(question) for question in questions]
        for batch in _by_length([len(p) for p in prompts], batch_size):
            ids, mask = _padded([prompts[n] for n in batch], side="left")
            with torch.inference_mode(), self._as(side):
                output = self.model.generate(
                    input_ids=ids.to(self.device),
                    attention_mask=mask.to(self.device),
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    eos_token_id=self.stops,
                    pad_token_id=0,
                )
            texts = self.tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
            yield [(n, text.strip()) for n, text in zip(batch, texts, strict=True)]

    def loss(
        self,
        side: Side,
        pairs: Sequence[tuple[str, str]],
        *,
        cutoff_len: int,
        batch_size: int,
        advance: Callable[[int], None],
    ) -> float:
        """Returns the mean negative log-likelihood of an answer token, end token included (nats).

        The mean is over all tokens of all answers, as in the trainer's loss. What is beyond
        `cutoff_len` tokens of a question with its answer is not counted.
        """
        import torch

        end = self.tokenizer.eos_token_id
        asked = [self._prompt(question) for question, _ in pairs]
        texts = [
            [*prompt, *self._ids("\n"), *self._ids(answer), end][:cutoff_len]
            for prompt, (_, answer) in zip(asked, pairs, strict=True)
        ]
        total, count = 0.0, 0
        for batch in _by_length([len(text) for text in texts], batch_size):
            ids, mask = _padded([texts[n] for n in batch], side="right")
            labels = ids.masked_fill(mask == 0, -100)
            for row, n in enumerate(batch):
                labels[row, : len(asked[n])] = -100
            with torch.inference_mode(), self._as(side):
                logits = self.model(
                    input_ids=ids.to(self.device), attention_mask=mask.to(self.device)
                ).logits
            total += torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(),
                labels[:, 1:].flatten().to(self.device),
                ignore_index=-100,
                reduction="sum",
            ).item()
            count += int((labels != -100).sum())
            advance(len(batch))
        if not count:
            raise DataError(
                f"cutoff_len {cutoff_len} leaves no token of any answer of the test rows; raise it"
            )
        return total / count

    def _as(self, side: Side) -> AbstractContextManager[Any]:
        if side == "tuned":
            return nullcontext()
        off: AbstractContextManager[Any] = self.model.disable_adapter()
        return off

    def _prompt(self, question: str) -> list[int]:
        """Returns ChatGLM3's chat format, as LLaMA-Factory's template ``chatglm3`` encodes it."""
        start, role, reply = self.tokenizer.convert_tokens_to_ids(
            ["sop", "<|user|>", "<|assistant|>"]
        )
        mask = self.tokenizer.convert_tokens_to_ids("[gMASK]")
        return [mask, start, role, *self._ids("\n"), *self._ids(question), reply]

    def _ids(self, text: str) -> list[int]:
        # Split, so that "<|user|>" in a question stays text.
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        ids: list[int] = encoded["input_ids"]
        return ids


def _by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yields indices in batches of like length, the longest first: too big fails at once."""
    order = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _padded(
    rows: list[list[int]], *, side: Literal["left", "right"]
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Returns ids and attention mask, both (rows, longest) int64, padded with 0."""
    import torch

    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for n, row in enumerate(rows):
        place = slice(width - len(row), None) if side == "left" else slice(0, len(row))
        ids[n, place] = torch.tensor(row)
        mask[n, place] = 1
    return ids, mask
