"""A trained prefix put before every layer's keys and values, in any batch.

PEFT puts it into the cache, from where batches of unequal lengths get wrong positions: it drops
those that it is given. In attention itself it is out of the cache's way, and a model with it is
used like any other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ATTENTION = "medqa_prefix"


class Prefix:
    """A prefix that PEFT wrote, of the kind PREFIX_TUNING.

    Args:
        model: The GlmForCausalLM that it was trained for.
        adapter: Its folder.
    """

    def __init__(self, model: Any, adapter: Path) -> None:
        from peft import PeftModel
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        self.model = model
        layers = PeftModel.from_pretrained(model, adapter).get_prompt(1).layers
        # Each (1, groups, virtual tokens, head width), in the model's type.
        self.before = [(layer.keys.detach(), layer.values.detach()) for layer in layers]
        AttentionInterface.register(ATTENTION, _attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)

    @contextmanager
    def in_place(self) -> Iterator[Any]:
        """Yields the model, which has the prefix before every text while the block runs."""
        length = self.before[0][0].shape[2]

        def later(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, kwargs | {"position_ids": kwargs["position_ids"] + length}

        usual = self.model.config._attn_implementation
        shift = self.model.model.rotary_emb.register_forward_pre_hook(later, with_kwargs=True)
        for layer, before in zip(self.model.model.layers, self.before, strict=True):
            layer.self_attn.before = before
        self.model.set_attn_implementation(ATTENTION)
        try:
            yield self.model
        finally:
            self.model.set_attn_implementation(usual)
            shift.remove()
            for layer in self.model.model.layers:
                del layer.self_attn.before


def _attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any
) -> Any:
    """Attends to the prefix of the layer `module` and to what transformers' SDPA attends to.

    Args:
        query: (rows, heads, length, head width).
        key: (rows, groups, all length, head width); `value` likewise.
        attention_mask: (rows or 1, 1, length, all length), true or 0 where something is seen; None
            where nothing but what comes later is hidden.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    keys, values = (one.expand(len(query), -1, -1, -1) for one in module.before)
    length, every = query.shape[2], key.shape[2]
    if attention_mask is None and length > 1:
        ones = torch.ones(length, every, dtype=torch.bool, device=query.device)
        attention_mask = ones.tril(every - length)[None, None]
    if attention_mask is not None:
        seen = attention_mask.dtype == torch.bool  # what stands for it: true, or 0
        attention_mask = torch.nn.functional.pad(attention_mask, (keys.shape[2], 0), value=seen)
    key, value = torch.cat([keys, key], 2), torch.cat([values, value], 2)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
