"""Attention of one new token to a cache in which many heads share few keys.

ChatGLM3-6B has 32 heads and 2 groups of keys and values. With a mask, which padding wants, SDPA has
no kernel for that, and transformers repeats keys and values 16 times at every step and layer
(``transformers/integrations/sdpa_attention.py``, ``use_gqa_in_sdpa``). The heads of a group can
stand in for 16 queries of one head as well: a new token sees all that is not padding.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "medqa_grouped"


def use(model: Any) -> None:
    """Makes a model that attends by SDPA attend by `grouped`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, grouped)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def grouped(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    scaling: float | None = None,
    **options: Any,
) -> "tuple[torch.Tensor, None]":
    """Attends as SDPA does.

    Args:
        module: The layer.
        query: (rows, heads, new tokens, head width).
        key: (rows, groups, width, head width).
        value: Like `key`.
        attention_mask: None, or bool; (rows, 1, 1, width) where there is one new token.
        scaling: Of the products.
        options: What else transformers passes.

    Returns:
        (rows, new tokens, heads, head width), and no weights.
    """
    from torch.nn.functional import scaled_dot_product_attention
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, new, width = query.shape
    if new > 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    asked = query.reshape(rows, key.shape[1], -1, width)
    found = scaled_dot_product_attention(asked, key, value, attn_mask=attention_mask, scale=scaling)
    return found.reshape(rows, 1, heads, width), None
