"""What a GLM layer keeps for its backward pass, tensor by tensor.

Read off ``transformers/models/glm/modeling_glm.py``, ``peft/tuners/lora`` and autograd's saved
tensors, and checked against PyTorch's MemTracker and its CPU allocator (tests/model/test_budget.py,
tests/train/test_forecast.py). All widths are elements per token, all results bytes.
"""

from dataclasses import dataclass

from medqa.model.budget_shape import BYTES, Shape


@dataclass(frozen=True)
class Method:
    """How a run computes, as far as memory depends on it.

    Attributes:
        weights: Data type of the frozen weights on the card.
        compute: Data type of matrix products.
        autocast: Products are cast to `compute` by autocast (``bf16: true`` or ``fp16: true``).
        rank: Of the LoRA adapter; 0 where there is none.
        targets: The linear layers that LoRA is beside.
        dora: Each target has DoRA's magnitude, too.
        dropout: LoRA's input goes through dropout, with a mask of bytes as on CUDA.
        bits: 4 or 8 where bitsandbytes holds the linear layers, else 0.
        double: The constants of 4-bit weights are quantised themselves.
        trained: So many layers of the base are trained; -1 is the whole model.
        virtual: Tokens of prefix tuning in front of every layer's keys and values.
        pure: ``pure_bf16``: what is trained of the base stays in half precision.
    """

    weights: str
    compute: str
    autocast: bool = False
    rank: int = 0
    targets: frozenset[str] = frozenset()
    dora: bool = False
    dropout: bool = False
    bits: int = 0
    double: bool = True
    trained: int = 0
    virtual: int = 0
    pure: bool = False

    @property
    def recast(self) -> bool:
        """Autocast makes a copy of every frozen weight in another half precision, and keeps it.

        A float16 checkpoint under bfloat16 autocast: a frozen weight is needed for the gradient of
        a layer's input, so the cast copy lives until the backward pass (measured with
        saved_tensors_hooks; autocast only keeps one copy of float32 leaves that are trained).
        """
        return self.autocast and self.weights != self.compute

    @property
    def residual(self) -> int:
        """Bytes of an element of the residual stream.

        Half precisions of two kinds promote to float32; bitsandbytes' layers give back the type
        that they were given (bitsandbytes/nn/modules.py, Linear4bit.forward).
        """
        whole = self.trained == -1 and not self.pure
        return 4 if whole or (self.recast and not self.bits) else BYTES[self.weights]

    @property
    def trained_bytes(self) -> int:
        """Bytes of a trained weight of the base: LLaMA-Factory casts them to float32."""
        return BYTES[self.weights] if self.pure else 4

    @property
    def adapter_bytes(self) -> int:
        """Bytes of an element in the adapter's own products; its weights are float32."""
        return BYTES[self.compute] if self.autocast else 4


def layer_saved(shape: Shape, how: Method, *, trained: bool) -> int:
    """Returns what one decoder layer keeps for each token of the micro-batch.

    Args:
        shape: The model's.
        how: The method.
        trained: The layer's own weights are trained.
    """
    c = BYTES[how.compute]
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    h, f = shape.hidden, shape.ffn
    norm = how.trained_bytes if trained else BYTES[how.weights]
    normed = max(norm, how.residual)  # bytes of an element that an RMSNorm gives
    attention_input = _inputs(how, {"q_proj": q, "k_proj": kv, "v_proj": kv}, h, normed, trained)
    saved = 2 * _norm(shape, how, trained=trained) + attention_input
    saved += 2 * (shape.head_dim // 2) * BYTES[how.weights]  # cosines and sines
    # What attention reads. Keys and values are repeated to all heads where it is given a mask
    # (transformers/integrations/sdpa_attention.py, use_gqa_in_sdpa) and, inside, on a CPU; without
    # a mask FlashAttention would keep 15 KB of 217 less, which is not counted on.
    saved += 3 * q * c
    saved += q * c + 4 * shape.heads  # what it gives, and the sum of its weights
    saved += _inputs(how, {"o_proj": h}, q, c, trained, alive=True)
    saved += _inputs(how, {"gate_up_proj": 2 * f}, h, normed, trained)
    saved += 3 * f * c  # gate and up, and the gate's SiLU
    saved += _inputs(how, {"down_proj": h}, f, c, trained)
    return saved


def layer_weights_saved(shape: Shape, how: Method, *, trained: bool) -> int:
    """Returns the cast copies of one layer's weights that its backward pass keeps, in bytes."""
    c = BYTES[how.compute]
    copies = shape.lora(how.rank, how.targets) * c if how.autocast else 0
    if (how.autocast and trained and not how.pure) or (how.recast and not how.bits):
        copies += shape.linear * c
    return copies


def layer_transient(shape: Shape, how: Method, tokens: int, *, trained: bool) -> int:
    """Returns what the backward pass of one layer needs beside what was kept, at its highest.

    That is at the MLP's second product, where the gradient of the widest input is made twice, by
    the layer and by the adapter beside it, and cast to float32 and back.
    """
    c = BYTES[how.compute]
    if "down_proj" in how.targets:
        wide = (2 * c + 4 if how.autocast else 8) * shape.ffn
    else:
        wide = 4 * c * shape.ffn
    fixed = 0
    if how.bits:
        fixed = shape.widest * c  # the weight as it was before it was quantised
    elif trained and how.autocast:
        fixed = shape.widest * c  # its gradient, before it is cast
    return tokens * (wide + 2 * how.residual * shape.hidden) + fixed


def prefix_saved(shape: Shape, how: Method, rows: int, length: int, *, learning: bool) -> int:
    """Returns what a prefix adds to one layer, in bytes.

    Args:
        shape: The model's.
        how: The method.
        rows: Rows in the model at a time.
        length: Tokens of each.
        learning: Keys and values of the prefix, repeated to all heads, are kept.
    """
    if not how.virtual:
        return 0
    c, kv = BYTES[how.compute], shape.kv_heads * shape.head_dim
    cached = 2 * kv * c * (length + 2 * how.virtual)  # with the prefix's own, before it is joined
    repeated = 2 * shape.heads * shape.head_dim * c * how.virtual
    return rows * (cached + (repeated if learning else 0))


def dora_transient(shape: Shape, how: Method) -> int:
    """Returns what DoRA's weight norm takes while it is computed: up to four such weights.

    In float32 the weight, the adapter's product scaled, and their sum; and the product itself.
    """
    if not how.dora:
        return 0
    widest = max(i * o for n, (i, o) in shape.sides.items() if n in how.targets)
    copied = 0 if how.weights == "float32" else 4
    return widest * (copied + 4 + 2 * how.adapter_bytes)


def _norm(shape: Shape, how: Method, *, trained: bool) -> int:
    """Its input in float32 and, where its weight is trained, its normalised input."""
    return (4 + (how.residual if trained else 0)) * shape.hidden + 4


def _inputs(
    how: Method, read_by: dict[str, int], width: int, given: int, trained: bool, alive: bool = False
) -> int:
    """Returns what is kept of one input for the weight gradients of the layers that read it.

    Args:
        how: The method.
        read_by: The linear layers that read it, with the width of what they give.
        width: Its own width.
        given: Bytes of its elements.
        trained: The layers' own weights are trained.
        alive: It is kept for another reason.
    """
    c = BYTES[how.compute]
    kept, shared = 0, False
    for name, out in read_by.items():
        if trained:
            if how.autocast and given != c:
                kept += c * width
            else:
                shared = True
        if name not in how.targets:
            continue
        if how.autocast:
            kept += c * width  # cast to the adapter's float32, and back: a copy for each
        elif given == 4 and not how.dropout:
            shared = True
        else:
            kept += 4 * width
        kept += width if how.dropout else 0  # its mask
        kept += how.adapter_bytes * how.rank
        if how.dora:
            kept += 2 * c * out  # what the layer and what the adapter give, before scaling
    return kept + (given * width if shared and not alive else 0)


def forward_transient(shape: Shape, how: Method) -> int:
    """Returns what a token takes while a layer is computed and nothing is kept, at its highest.

    That is at one of the MLP's products: what gate and up give, what the adapter adds to it before
    and after scaling; or gate, up and their product, with the adapter's float32 copy of it.
    """
    c, a = BYTES[how.compute], how.adapter_bytes
    first, second = 2 * c * shape.ffn, 4 * c * shape.ffn
    if "gate_up_proj" in how.targets:
        first += 2 * 2 * a * shape.ffn
    if "down_proj" in how.targets and (how.autocast or c != 4):
        second += (4 + (c if how.autocast else 0) - c) * shape.ffn
    return max(first, second) + 4 * how.residual * shape.hidden
