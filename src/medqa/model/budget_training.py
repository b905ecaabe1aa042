"""Memory of a training step, and of an evaluation between two of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medqa.model.budget_ledger import (
    Method,
    dora_transient,
    forward_transient,
    layer_saved,
    layer_transient,
    layer_weights_saved,
    prefix_saved,
)
from medqa.model.budget_recipe import (
    BATCH,
    CUTOFF,
    checkpoints,
    fuses,
    has_reference,
    number,
    stage,
)
from medqa.model.budget_shape import BYTES, Shape
from medqa.model.budget_terms import Peak, highest


@dataclass(frozen=True)
class Run:
    """A recipe with its model.

    Attributes:
        values: A LLaMA-Factory training YAML.
        shape: The model's.
        how: What the YAML makes of it.
        deepspeed: What the file that `values` names holds.
        cards: How many train together.
    """

    values: Mapping[str, Any]
    shape: Shape
    how: Method
    deepspeed: Mapping[str, Any]
    cards: int

    def train(self) -> Peak:
        """Returns the peak of a step."""
        rows = self._rows("per_device_train_batch_size")
        tokens = rows * self._length
        accumulates = self._number("gradient_accumulation_steps", 1) > 1
        kept, layer = self._kept(rows)
        after = tokens * forward_transient(self.shape, self.how)
        learned = bool(self.how.trained)
        backward = layer_transient(self.shape, self.how, tokens, trained=learned)
        # A gradient that is not yet added to what is there.
        made = self.shape.widest * self.how.trained_bytes if learned else 0
        again = layer if checkpoints(self.values) else 0
        before = {"gradients": self.gradients if accumulates else 0}
        weight_norm = again + dora_transient(self.shape, self.how) if self.how.dora else 0
        moments = {
            "forward": before | {"activations": kept + weight_norm + after},
            "loss": before
            | {"activations": kept + self._last(tokens), "logits": self._loss(tokens)},
            "backward of the last layer": before | {"activations": kept + again + backward + made},
            "backward of the first layer": {
                "activations": layer + backward + self._inputs(rows) + (made if accumulates else 0),
                "gradients": self.gradients,
            },
            "optimiser's step": {
                "gradients": self.gradients,
                "optimiser": 0 if self.zero else self.gradients,
            },
        }
        return highest("train", self.persistent(), moments)

    def evaluate(self) -> Peak:
        """Returns the peak of an evaluation; Liger fuses nothing outside of training."""
        s, how = self.shape, self.how
        rows = self._rows("per_device_eval_batch_size")
        tokens, c = rows * self._length, BYTES[how.compute]
        # Preferences: the model's logits in float32, and those of the reference with their softmax.
        each = 12 if stage(self.values) == "dpo" else logit(c)
        states = self._inputs(self._rows("per_device_train_batch_size"))  # of the last step
        states += self._inputs(rows, batches=1) + tokens * how.residual * s.hidden
        states += s.layers * prefix_saved(s, how, rows, self._length, learning=False)
        passing = tokens * forward_transient(s, how) + dora_transient(s, how)
        # A weight as it is computed with, where it is stored otherwise.
        passing += s.widest * c if how.recast or how.bits else 0
        head = s.head * c if how.recast else 0
        moments = {
            "forward": {"activations": states + passing},
            "output layer": {"activations": states + head, "logits": tokens * s.vocab * c},
            "loss": {"activations": states, "logits": tokens * s.vocab * each},
        }
        return highest("evaluate", self.persistent(), moments)

    @property
    def zero(self) -> int:
        """Stage of DeepSpeed's ZeRO; 0 without it."""
        return int(self.deepspeed.get("zero_optimization", {}).get("stage", 0))

    @property
    def trained(self) -> int:
        """Parameters that are trained."""
        s, how = self.shape, self.how
        if how.trained:
            return s.parameters if how.trained == -1 else how.trained * s.layer
        prefix = how.virtual * s.layers * 2 * s.kv_heads * s.head_dim
        return s.layers * s.lora(how.rank, how.targets, dora=how.dora) + prefix

    @property
    def gradients(self) -> int:
        """Bytes of the gradients of all that is trained."""
        if not self.zero:
            return self.trained * (self.how.trained_bytes if self.how.trained else 4)
        return self.trained * 2 // (self.cards if self.zero >= 2 else 1)

    def persistent(self) -> dict[str, int]:
        """Returns what is there all the time: weights, adapter, the optimiser's state."""
        s, how, trained = self.shape, self.how, self.trained
        frozen = s.parameters - (trained if how.trained else 0)
        weights = frozen * BYTES[how.weights]
        if how.bits:
            weights += round(s.layers * s.linear * (_quantised(how) - BYTES[how.weights]))
        width = how.trained_bytes if how.trained else 4
        own, state = trained * width, trained * _moments(self.values, width)
        if self.zero:  # half precision on every card, and float32 with the moments
            own, state = trained * 2, trained * 12 // self.cards
            state = 0 if self._offloads("optimizer") else state
        if self.zero == 3:
            weights, own = weights // self.cards, own // self.cards
            if self._offloads("param"):
                weights, own = 0, 0
            weights += 2 * max(2 * s.layer, s.head)  # gathered: a layer and the next, or the head
        if stage(self.values) == "dpo" and has_reference(self.values) and how.trained:
            weights += s.parameters * BYTES[s.dtype]  # LoRA's reference is the model without it
        adapter = 0 if how.trained else own
        return {"weights": weights + own - adapter, "adapter": adapter, "optimiser": state}

    def _kept(self, rows: int) -> tuple[int, int]:
        """Returns what is kept for the backward pass, and what one layer keeps, in bytes."""
        s, how, tokens = self.shape, self.how, rows * self._length
        learned = bool(how.trained)
        layer = tokens * layer_saved(s, how, trained=learned)
        layer += layer_weights_saved(s, how, trained=learned)
        layer += prefix_saved(s, how, rows, self._length, learning=True)
        deep = how.trained if how.trained > 0 else s.layers  # layers that gradients reach
        if checkpoints(self.values):
            kept = deep * tokens * how.residual * s.hidden
        else:
            kept = deep * layer
            kept -= 0 if learned else tokens * (4 * s.hidden + 4)  # nothing is learned below
        return kept + self._inputs(rows), layer

    def _last(self, tokens: int) -> int:
        """The final norm's input, and the output layer's weights where they are cast."""
        s, how = self.shape, self.how
        whole = how.trained == -1
        cast = how.recast or (whole and how.autocast and not how.pure)
        states = tokens * (4 + (how.residual if whole else 0)) * s.hidden
        return states + (s.head * BYTES[how.compute] if cast else 0)

    def _loss(self, tokens: int) -> int:
        """Logits and what is made of them."""
        s, how = self.shape, self.how
        if stage(self.values) == "dpo":
            # Log-softmax and logits of the model, and the same of the reference, at once
            # (llamafactory/train/dpo/trainer.py, get_batch_loss_metrics).
            return tokens * s.vocab * (16 if has_reference(self.values) else 12)
        if not fuses(self.values):
            return tokens * s.vocab * 12
        # liger_kernel/ops/fused_linear_cross_entropy.py: a block of logits about as large as the
        # hidden states, their gradient, and that of the output layer where it is trained.
        block = math.ceil(tokens / math.ceil(s.vocab / s.hidden))
        block = min(1 << (block - 1).bit_length(), tokens)
        gradient = s.head * how.trained_bytes if how.trained == -1 else 0
        return (
            block * s.vocab * BYTES[how.compute] + 2 * tokens * s.hidden * how.residual + gradient
        )

    def _inputs(self, rows: int, batches: int = 0) -> int:
        """Ids, labels and masks of all batches of a step, and of the one that is fetched ahead."""
        batches = 1 + (batches or self._number("gradient_accumulation_steps", 1))
        mask = BYTES[self.how.compute] * self._length if self.values.get("neat_packing") else 8
        return batches * rows * self._length * (16 + mask)

    def _offloads(self, what: str) -> bool:
        place = self.deepspeed.get("zero_optimization", {}).get(f"offload_{what}") or {}
        return bool(place.get("device", "none") != "none")

    def _rows(self, key: str) -> int:
        """Rows in the model at a time; a preference is two."""
        return self._number(key, BATCH) * (2 if stage(self.values) == "dpo" else 1)

    @property
    def _length(self) -> int:
        return self._number("cutoff_len", CUTOFF)

    def _number(self, key: str, default: int) -> int:
        return number(self.values, key, default)


def logit(width: int) -> int:
    """Returns the bytes of a logit of `width` bytes, of its copy in float32 and its log-softmax."""
    return (width if width < 4 else 0) + 4 + 4


def _quantised(how: Method) -> float:
    """Bytes of a weight that bitsandbytes holds, its constants included.

    Blocks of 64 share a float32 scale; double quantisation makes that one byte, and a float32 for
    256 of them (bitsandbytes/functional.py, quantize_4bit). 8-bit rows share one each: nothing.
    """
    if how.bits == 8:
        return 1.0
    return 0.5 + (1 / 64 + 4 / (64 * 256) if how.double else 4 / 64)


def _moments(values: Mapping[str, Any], width: int) -> int:
    """Bytes that the optimiser keeps for each trained parameter of `width` bytes."""
    name = str(values.get("optim", "adamw_torch"))
    if "8bit" in name:
        return 2
    return 0 if "adafactor" in name or name == "sgd" else 2 * width
