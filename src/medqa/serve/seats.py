"""Answers on their way through the model together: one row each, in a cache with room to grow."""

import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROOM = 64
"""Columns that a cache has free when it is made; so often a step copies it."""


SHARE = 0.6
"""Of the memory that is free beside the model, what the cache may take."""


class Seats:
    """Rows of the model's cache, padded on the left so that every row's newest token is last.

    Attributes:
        layers: Of each layer keys and values, each (rows, heads, width + room, head width).
        mask: (rows, width + room), bool: false on the padding alone.
        lengths: (rows,), int64: how many tokens of each row the cache has.
        last: (rows,), int64: the newest token of each row, which the cache does not have yet.
        width: Columns in use.
    """

    def __init__(
        self,
        layers: list[tuple[Any, Any]],
        mask: "torch.Tensor",
        lengths: "torch.Tensor",
        last: "torch.Tensor",
        width: int,
    ) -> None:
        self.layers, self.mask, self.lengths, self.last = layers, mask, lengths, last
        self.width = width
        self._padded = bool((lengths < width).any())

    @classmethod
    def read(cls, model: Any, prompts: Sequence[Sequence[int]]) -> tuple["Seats", "torch.Tensor"]:
        """Reads prompts.

        Returns:
            Their rows, whose `last` is to be set, and the logits of the first token of each answer,
            (rows, vocabulary).
        """
        import torch
        from transformers import DynamicCache

        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros(len(prompts), width, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = True
        ids, mask = ids.to(model.device), mask.to(model.device)
        lengths = mask.sum(1)
        even = len(set(map(len, prompts))) == 1
        found = model(
            input_ids=ids,
            attention_mask=None if even else mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=DynamicCache(config=model.config),
            use_cache=True,
            logits_to_keep=1,
        )
        layers = [(layer.keys, layer.values) for layer in found.past_key_values.layers]
        return cls(layers, mask, lengths, lengths, width), found.logits[:, -1]

    @classmethod
    def joined(cls, parts: Sequence[tuple["Seats", list[int]]]) -> "Seats | None":
        """Returns the rows named of each of `parts` as one, None where none is named.

        The parts are used up: each layer is freed as soon as it is copied.
        """
        import torch

        parts = [(seats, rows) for seats, rows in parts if rows]
        if not parts:
            return None
        lengths = torch.cat([seats.lengths[rows] for seats, rows in parts])
        width = int(lengths.max())

        def copied(tensors: "Sequence[torch.Tensor]", dim: int) -> "torch.Tensor":
            shape = list(tensors[0].shape)
            shape[0], shape[dim] = len(lengths), width + ROOM
            made = tensors[0].new_zeros(shape)  # what is masked must be a number all the same
            top = 0
            for tensor, (seats, rows) in zip(tensors, parts, strict=True):
                kept = min(width, seats.width)
                new = made.narrow(0, top, len(rows)).narrow(dim, width - kept, kept)
                new.copy_(tensor.narrow(dim, seats.width - kept, kept)[rows])
                top += len(rows)
            return made

        mask = copied([seats.mask for seats, _ in parts], 1)
        mask[:, width:] = True
        last = torch.cat([seats.last[rows] for seats, rows in parts])
        layers = []
        for n in range(len(parts[0][0].layers)):
            keys, values = zip(*(seats.layers[n] for seats, _ in parts), strict=True)
            layers.append((copied(keys, 2), copied(values, 2)))
            del keys, values
            for seats, _ in parts:
                seats.layers[n] = None, None
        return cls(layers, mask, lengths, last, width)

    def __len__(self) -> int:
        """Returns how many rows there are."""
        return len(self.lengths)

    def step(self, model: Any) -> "torch.Tensor":
        """Takes in the last token of every row; returns logits (rows, vocabulary) of the next."""
        from transformers import Cache

        if self.width == self.mask.shape[1]:
            self._grow()
        mask = self.mask[:, None, None, : self.width + 1]  # as attention takes it
        layers = [_column()(keys, values, self.width) for keys, values in self.layers]
        logits = model(
            input_ids=self.last[:, None],
            attention_mask=mask if self._padded else None,
            position_ids=self.lengths[:, None],
            past_key_values=Cache(layers=layers),
            use_cache=True,
        ).logits
        self.width += 1
        self.lengths = self.lengths + 1
        found: torch.Tensor = logits[:, -1]
        return found

    def _grow(self) -> None:
        from torch.nn.functional import pad

        self.mask = pad(self.mask, (0, ROOM), value=True)
        for n, (keys, values) in enumerate(self.layers):
            self.layers[n] = pad(keys, (0, 0, 0, ROOM)), pad(values, (0, 0, 0, ROOM))


@cache
def _column() -> Any:
    """Returns the class of a layer of transformers' cache that writes one column of a larger one.

    Its own cache copies everything at every step.
    """
    from transformers.cache_utils import DynamicLayer

    class Column(DynamicLayer):
        keys: Any
        values: Any

        def __init__(self, keys: Any, values: Any, width: int) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.keys, self.values, self._width = keys, values, width
            self.is_initialized = True

        def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> Any:
            n = self._width
            self.keys[:, :, n : n + 1] = key_states
            self.values[:, :, n : n + 1] = value_states
            return self.keys[:, :, : n + 1], self.values[:, :, : n + 1]

        def get_seq_length(self) -> int:
            return self._width

    return Column


def capacity(model: Any) -> int:
    """Returns how many tokens the cache may hold, all rows and their padding together."""
    import torch

    config = model.config
    page: int = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    if model.device.type == "cuda":
        free = torch.cuda.mem_get_info(model.device)[0]
    else:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return int(free * SHARE / (page * model.dtype.itemsize))
