"""Greedy decoding of many prompts: a row whose answer ends gives its seat to the next prompt."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

SPARE = 4
"""Seats are filled when one in so many is free: filling costs about as much as a step."""


def decode(
    model: Any,
    prompts: Sequence[list[int]],
    *,
    batch_size: int,
    max_new_tokens: int,
    stops: Collection[int],
) -> Iterator[list[tuple[int, list[int]]]]:
    """Continues every prompt with the likeliest token, then the next, until one of `stops`.

    It says what `generate` says to each prompt alone, up to the rounding of another batch. What
    shares a batch with what is decided by the arguments alone: equal calls, equal tokens.

    Args:
        model: A causal language model; its cache is a DynamicCache without a window.
        prompts: Token ids; like lengths side by side save padding.
        batch_size: Rows in the model at a time.
        max_new_tokens: Where an answer is cut.
        stops: Ids that end an answer.

    Yields:
        Whenever answers end, the index of each prompt and its new ids, the end token included.
    """
    waiting = deque(range(len(prompts)))
    seated: list[int] = []  # the prompt in each row of the batch
    said: dict[int, list[int]] = {}  # of those that have not ended
    batch: Batch | None = None
    while waiting or said:
        going = [row for row, n in enumerate(seated) if n in said]
        if (len(seated) - len(going)) * SPARE >= len(seated):
            new = [waiting.popleft() for _ in range(min(len(waiting), batch_size - len(going)))]
            batch = batch.kept(going) if batch and going else None
            if new:
                fresh = Batch.begun(model, [prompts[n] for n in new])
                batch = batch.joined(fresh) if batch else fresh
            seated = [seated[row] for row in going] + new
            said |= {n: [] for n in new}
            spoken = new
        else:
            assert batch  # a seat is taken
            batch.step(model)
            spoken = [n for n in seated if n in said]
        assert batch
        ended = []
        last = dict(zip(seated, batch.last.tolist(), strict=True))
        for n in spoken:
            said[n].append(last[n])
            if last[n] in stops or len(said[n]) == max_new_tokens:
                ended.append((n, said.pop(n)))
        if ended:
            yield ended


class Batch:
    """Rows on their way through the model.

    Attributes:
        cache: Keys and values of every layer, each (rows, heads, length, head width).
        mask: (rows, length), bool: false on the padding, which is on the left.
        last: (rows,), int64: the newest token of each row, which the cache does not have yet.
    """

    def __init__(self, cache: Any, mask: "torch.Tensor", last: "torch.Tensor") -> None:
        self.cache, self.mask, self.last = cache, mask, last

    @classmethod
    def begun(cls, model: Any, prompts: list[list[int]]) -> "Batch":
        """Reads prompts and says the first token of each answer."""
        import torch
        from transformers import DynamicCache

        ids, mask = padded(prompts, side="left")
        ids, mask = ids.to(model.device), mask.to(model.device)
        with torch.inference_mode():
            read = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                past_key_values=DynamicCache(config=model.config),
                use_cache=True,
                logits_to_keep=1,
            )
            return cls(read.past_key_values, mask, read.logits[:, -1].argmax(-1))

    def step(self, model: Any) -> None:
        """Says the next token of every row, also of those that have ended."""
        import torch

        with torch.inference_mode():
            position = self.mask.sum(1, keepdim=True)
            self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=True)
            logits = model(
                input_ids=self.last[:, None],
                attention_mask=self.mask[:, None, None],  # as attention takes it: nothing to make
                position_ids=position,
                past_key_values=self.cache,
                use_cache=True,
            ).logits
            self.last = logits[:, -1].argmax(-1)

    def kept(self, rows: list[int]) -> "Batch":
        """Returns the batch with these rows alone, and no more padding than they need."""
        import torch

        with torch.inference_mode():
            mask = self.mask[rows]
            width = int(mask.sum(1).max())
            for layer in self.cache.layers:
                layer.keys = layer.keys[rows, :, -width:]
                layer.values = layer.values[rows, :, -width:]
            return Batch(self.cache, mask[:, -width:], self.last[rows])

    def joined(self, other: "Batch") -> "Batch":
        """Returns one batch of both, the shorter one padded on the left."""
        import torch

        mine, its = self.mask.shape[1], other.mask.shape[1]

        def both(one: "torch.Tensor", two: "torch.Tensor", after: tuple[int, ...]) -> Any:
            pad = torch.nn.functional.pad
            width = max(mine, its)
            return torch.cat(
                [pad(one, (*after, width - mine, 0)), pad(two, (*after, width - its, 0))]
            )

        with torch.inference_mode():
            for layer, more in zip(self.cache.layers, other.cache.layers, strict=True):
                layer.keys = both(layer.keys, more.keys, (0, 0))
                layer.values = both(layer.values, more.values, (0, 0))
            mask = both(self.mask, other.mask, ())
            return Batch(self.cache, mask, torch.cat([self.last, other.last]))


def padded(
    rows: list[list[int]], *, side: Literal["left", "right"]
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Returns ids (int64) and mask (bool), both (rows, longest); the padding is 0 and false."""
    import torch

    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for n, row in enumerate(rows):
        place = slice(width - len(row), None) if side == "left" else slice(0, len(row))
        ids[n, place] = torch.tensor(row)
        mask[n, place] = True
    return ids, mask
