"""The shape of a native GLM, as far as memory and time depend on it."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Shape:
    """Sizes of a GlmForCausalLM.

    Attributes:
        layers: Decoder layers.
        hidden: Width of the residual stream.
        ffn: Width of the MLP's product.
        heads: Of the queries.
        kv_heads: Of keys and values.
        head_dim: Width of one head.
        vocab: Rows of the embedding and of the output layer.
        reach: Longest text in tokens.
        dtype: Data type in which the weights are stored.
        tied: The output layer is the embedding.
        biased: Queries, keys and values have a bias.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    reach: int = 8192
    dtype: str = "float16"
    tied: bool = False
    biased: bool = True

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        """Reads a native ``config.json``.

        Raises:
            KeyError: A size is not there.
        """
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            ffn=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocab=config["vocab_size"],
            reach=config.get("max_position_embeddings", 8192),
            dtype=config.get("dtype") or config.get("torch_dtype") or "float32",
            tied=config.get("tie_word_embeddings", False),
            biased=config.get("attention_bias", True),
        )

    @property
    def sides(self) -> dict[str, tuple[int, int]]:
        """Each linear layer of a decoder layer to the widths of what it reads and gives."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, q),
            "k_proj": (self.hidden, kv),
            "v_proj": (self.hidden, kv),
            "o_proj": (q, self.hidden),
            "gate_up_proj": (self.hidden, 2 * self.ffn),
            "down_proj": (self.ffn, self.hidden),
        }

    @property
    def linear(self) -> int:
        """Weights of the linear layers of one decoder layer, without biases."""
        return sum(i * o for i, o in self.sides.values())

    @property
    def widest(self) -> int:
        """Weights of the largest of them."""
        return max(i * o for i, o in self.sides.values())

    @property
    def cached(self) -> int:
        """Numbers that a token leaves in the cache of keys and values."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def layer(self) -> int:
        """All parameters of one decoder layer."""
        bias = (self.heads + 2 * self.kv_heads) * self.head_dim if self.biased else 0
        return self.linear + bias + 2 * self.hidden

    @property
    def head(self) -> int:
        """Weights of the output layer."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters of the model."""
        return self.layers * self.layer + self.hidden + self.head * (1 if self.tied else 2)

    def lora(self, rank: int, targets: Container[str], *, dora: bool = False) -> int:
        """Returns the parameters of an adapter of `rank` in one decoder layer."""
        return sum(
            rank * (i + o) + (o if dora else 0)
            for name, (i, o) in self.sides.items()
            if name in targets
        )


CHATGLM3_6B = Shape(28, 4096, 13696, 32, 2, 128, 65024, dtype="bfloat16")
"""As its published ``config.json`` says, and with the weights as ``make model`` stores them; they
were published in float16."""
