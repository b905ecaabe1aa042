"""Models that answer: a base and an adapter in the memory of one, or two models in turn.

Long, as both answer and measure by the same lines and differ only in how a side is put in place.
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medqa.compare import loading
from medqa.compare.decode import decode
from medqa.compare.likelihood import nats
from medqa.compare.prefix import Prefix
from medqa.errors import DataError
from medqa.model.fingerprint import read, weight_map
from medqa.paths import resolve

Side = Literal["base", "tuned"]
SIDES: tuple[Side, Side] = ("base", "tuned")

GROUP = 16
"""So many batches of questions share their seats; what a kill stops in a group is asked again."""


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: The answer, control tokens left out.
        tokens: How many tokens it took, the end token included.
        finished: It ended itself, rather than being cut at the longest length allowed.
    """

    text: str
    tokens: int
    finished: bool


class Answering(ABC):
    """Answers and losses of two sides; whoever asks one side to the end before the other is quick.

    Everything is greedy and depends on the arguments alone, so there is nothing to seed: a second
    run on the same machine says the same, also one that goes on after a kill, since batches are
    cut from all questions, the longest first, and not from those that are left.
    """

    tokenizer: Any
    _busy = False

    @abstractmethod
    def _model_of(self, side: Side) -> AbstractContextManager[Any]:
        """Yields the GlmForCausalLM of a side, and sets the tokenizer that goes with it."""

    @contextmanager
    def as_side(self, side: Side) -> Iterator[Any]:
        """Yields the GlmForCausalLM of a side, which is that side's while the block runs.

        Raises:
            RuntimeError: The other side's block has not ended, and they share their memory.
        """
        if self._busy:
            raise RuntimeError("ask one side to the end before the other: they share their memory")
        self._busy = True
        try:
            with self._model_of(side) as model:
                yield model
        finally:
            self._busy = False

    def answers(
        self,
        side: Side,
        questions: Sequence[str],
        *,
        max_new_tokens: int,
        batch_size: int,
        kept: Container[object] = (),
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Answers greedily.

        Args:
            side: Who answers.
            questions: Each becomes a prompt of its own in ChatGLM3's chat format.
            max_new_tokens: Longest answer.
            batch_size: Questions in the model at a time.
            kept: Indices of questions that need no answer, such as a journal's.

        Yields:
            As answers end, the index of each question and its answer.

        Raises:
            DataError: A question with its answer is longer than the model reaches.
            StepError: The card's memory is too small.
        """
        if all(n in kept for n in range(len(questions))):
            return
        with self.as_side(side) as model:
            prompts = [self.prompt(question) for question in questions]
            _require_room(model, [len(p) + max_new_tokens for p in prompts], "max_new_tokens")
            for group in _by_length([len(p) for p in prompts], GROUP * batch_size):
                if all(n in kept for n in group):
                    continue
                ended = decode(
                    model,
                    [prompts[n] for n in group],
                    batch_size=batch_size,
                    max_new_tokens=max_new_tokens,
                    stops=_stops(model),
                )
                for some in loading.within_memory(ended, batch_size):
                    found = [(group[n], self._answer(ids, model)) for n, ids in some]
                    if new := [(n, answer) for n, answer in found if n not in kept]:
                        yield new

    def losses(
        self,
        side: Side,
        pairs: Sequence[tuple[str, str]],
        *,
        cutoff_len: int,
        batch_size: int,
        kept: Container[object] = (),
    ) -> Iterator[list[tuple[int, float, int]]]:
        """Measures how unlikely the model finds given answers.

        Args:
            side: Whose probabilities.
            pairs: Questions with answers.
            cutoff_len: Longest question with answer, in tokens, as in training; what is beyond
                is not counted.
            batch_size: Pairs in the model at a time.
            kept: Indices of pairs that need no measuring.

        Yields:
            For each batch, the index of each pair, the negative log-likelihood of its answer
            (nats, summed over its tokens, the end token included) and the number of these tokens.

        Raises:
            DataError: `cutoff_len` leaves no token of any answer, or is beyond the model's reach.
            StepError: The card's memory is too small.
        """
        if all(n in kept for n in range(len(pairs))):
            return
        with self.as_side(side) as model:
            asked = [self.prompt(question) for question, _ in pairs]
            said = [self._said(answer) for _, answer in pairs]
            texts = [(q + a)[:cutoff_len] for q, a in zip(asked, said, strict=True)]
            counts = [max(len(t) - len(q), 0) for t, q in zip(texts, asked, strict=True)]
            _require_room(model, [len(text) for text in texts], "cutoff_len")
            if not any(counts):
                raise DataError(
                    f"cutoff_len {cutoff_len} leaves no token of any answer of the test rows; "
                    "raise it"
                )
            todo = (
                batch
                for batch in _by_length([len(text) for text in texts], batch_size)
                if not all(n in kept for n in batch)
            )
            measured = (
                (batch, nats(model, [texts[n] for n in batch], [counts[n] for n in batch]))
                for batch in todo
            )
            for batch, losses in loading.within_memory(measured, batch_size):
                yield [(n, loss, counts[n]) for n, loss in zip(batch, losses, strict=True)]

    def _answer(self, ids: list[int], model: Any) -> Answer:
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return Answer(text, len(ids), ids[-1] in _stops(model))

    def prompt(self, question: str) -> list[int]:
        """Returns ChatGLM3's chat format, as LLaMA-Factory's template ``chatglm3`` encodes it."""
        mask, start, role, reply = self.tokenizer.convert_tokens_to_ids(
            ["[gMASK]", "sop", "<|user|>", "<|assistant|>"]
        )
        return [mask, start, role, *self.ids("\n"), *self.ids(question), reply]

    def _said(self, answer: str) -> list[int]:
        return [*self.ids("\n"), *self.ids(answer), self.tokenizer.eos_token_id]

    def ids(self, text: str) -> list[int]:
        """Returns the tokens of a text; ``<|user|>`` in it stays text, no control token."""
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        ids: list[int] = encoded["input_ids"]
        return ids


class Pair(Answering):
    """Base and tuned model in the memory of one.

    The base answers with the adapter off. For the tuned answers the adapter is added into the
    weights where their type is precise enough, as `export` does, which makes it as quick as the
    base; before the base is asked again they are restored from its files, bit by bit. bfloat16 has
    8 bits, which a light adapter may not move at all: there it stays beside the weights. A prefix
    has nothing to do with weights and is put before the text.

    Args:
        model: Folder of the native base model.
        adapter: Folder of the PEFT adapter.

    Raises:
        CheckpointError: The adapter is none that can be switched off and on.
    """

    def __init__(self, model: str, adapter: str) -> None:
        from peft import PeftConfig, PeftModel

        self._folder = resolve(model)
        config = PeftConfig.from_pretrained(resolve(adapter))
        loading.require_switchable(config, adapter)
        base = loading.model(self._folder)
        self.model: Any = base
        self._prefix = None
        if config.peft_type == "PREFIX_TUNING":
            self._prefix = Prefix(base, resolve(adapter))
        else:
            self.model = PeftModel.from_pretrained(base, resolve(adapter)).eval()
        self.tokenizer = loading.tokenizer(self._folder)
        lora = config.peft_type == "LORA" and not getattr(config, "alora_invocation_tokens", None)
        self._mergeable = lora and str(base.dtype) in ("torch.float32", "torch.float16")
        self._merged = False

    @contextmanager
    def _model_of(self, side: Side) -> Iterator[Any]:
        if self._prefix:
            with self._prefix.in_place() if side == "tuned" else nullcontext(self.model) as model:
                yield model
        elif side == "tuned":
            self._merge()
            yield self.model.get_base_model()
        else:
            self._restore()
            with self.model.disable_adapter():
                yield self.model.get_base_model()

    def _merge(self) -> None:
        if self._mergeable and not self._merged:
            self._merged = True
            self.model.merge_adapter()

    def _restore(self) -> None:
        """Reads the changed weights again: subtracting what was added leaves a rounding error."""
        import torch

        if not self._merged:
            return
        self.model.unmerge_adapter()
        files = weight_map(self._folder)
        with torch.no_grad():
            for name, weight in self.model.get_base_model().named_parameters():
                if ".base_layer." in name:
                    original = name.replace(".base_layer.", ".")
                    weight.copy_(read(files[original], original))
        self._merged = False


class TwoModels(Answering):
    """Two models, of which one is in memory at a time.

    Args:
        base: Folder of the one native model.
        tuned: Folder of the other.
    """

    def __init__(self, base: str, tuned: str) -> None:
        self._folders: dict[Side, Path] = {"base": resolve(base), "tuned": resolve(tuned)}
        self._tokenizers = {
            side: loading.tokenizer(folder) for side, folder in self._folders.items()
        }
        self._model: Any = None
        self._side: Side | None = None

    @contextmanager
    def _model_of(self, side: Side) -> Iterator[Any]:
        import torch

        if self._side != side:
            self._model = None  # before the other comes
            torch.cuda.empty_cache()
            self._model, self._side = loading.model(self._folders[side]), side
        self.tokenizer = self._tokenizers[side]
        yield self._model


def _require_room(model: Any, lengths: Sequence[int], setting: str) -> None:
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    reach = model.config.max_position_embeddings
    if lengths[longest] > reach:
        raise DataError(
            f"question {longest + 1} takes {lengths[longest]} tokens with its answer, and the "
            f"model reaches {reach}; lower {setting}, or take the question out"
        )


def _stops(model: Any) -> set[int]:
    end = model.generation_config.eos_token_id
    return {end} if isinstance(end, int) else set(end)


def _by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yields indices in groups of like length, the longest first: too big fails at once."""
    order = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    for start in range(0, len(order), size):
        yield order[start : start + size]
