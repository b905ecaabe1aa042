"""Peak memory of a training step without its memory: PyTorch's MemTracker over fake tensors.

Fake tensors have a shape, a type and a device, and no numbers, so a model of six billion
parameters can be stepped in seconds; MemTracker adds up the storages alive.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import _TOTAL_KEY, MemTracker
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GlmConfig, GlmForCausalLM

from medqa.model.budget_shape import Shape


class Tracker(MemTracker):
    """MemTracker without its figures for each module, which take most of its time."""

    highest = 0

    def __enter__(self) -> "Tracker":
        TorchDispatchMode.__enter__(self)
        return self

    def __exit__(self, *error: object) -> None:
        TorchDispatchMode.__exit__(self, *error)

    def _update_peak_stats(self, peak_state: object) -> None:
        now = sum(snapshot[_TOTAL_KEY] for snapshot in self._curr_mem_snap.values())
        self.highest = max(self.highest, now)


def model_of(shape: Shape, values: Mapping[str, Any]) -> Any:
    """Returns the model as LLaMA-Factory prepares it for a recipe, on the meta device."""
    config = GlmConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        attention_bias=shape.biased,
        tie_word_embeddings=shape.tied,
        pad_token_id=0,
        use_cache=False,
    )
    config._attn_implementation = "sdpa"
    method = values.get("finetuning_type", "lora")
    with torch.device("meta"):
        model: Any = GlmForCausalLM(config).to(getattr(torch, shape.dtype)).train()
        if method == "lora":
            model = get_peft_model(
                model,
                LoraConfig(
                    r=values.get("lora_rank", 8),
                    lora_dropout=values.get("lora_dropout", 0.0),
                    use_dora=values.get("use_dora", False),
                    target_modules=sorted(shape.sides)
                    if values.get("lora_target", "all") == "all"
                    else values["lora_target"].split(","),
                ),
            )
        elif method == "freeze":
            first = shape.layers - values.get("freeze_trainable_layers", 2)
            for name, parameter in model.named_parameters():
                layer = name.split(".")[2] if ".layers." in name else "-1"
                parameter.requires_grad_(int(layer) >= first)
        for parameter in model.parameters():
            if parameter.requires_grad and not values.get("pure_bf16"):
                parameter.data = parameter.data.float()
    if not values.get("disable_gradient_checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": True})
        model.enable_input_require_grads()
    return model


def peak(shape: Shape, values: Mapping[str, Any]) -> int:
    """Returns the peak bytes of the second of two steps as transformers' Trainer takes them."""
    model = model_of(shape, values)
    tokens = (values["per_device_train_batch_size"], values["cutoff_len"])
    dtype = torch.bfloat16 if values.get("bf16") else None
    cast = torch.autocast("cpu", dtype) if dtype else nullcontext()

    def forward(**inputs: Any) -> Any:
        with cast:
            return model(**inputs)

    with FakeTensorMode(allow_non_fake_inputs=True), Tracker() as tracker:
        model._apply(lambda t: torch.empty(t.shape, dtype=t.dtype, device="cpu"))
        run = convert_outputs_to_fp32(forward) if dtype else forward
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, foreach=True)
        tracker.track_external(model)
        for _ in range(2):
            ids = torch.zeros(tokens, dtype=torch.long)
            inputs = {"input_ids": ids, "labels": ids.clone()}
            if values.get("neat_packing"):
                side = (tokens[0], 1, tokens[1], tokens[1])
                inputs["attention_mask"] = torch.zeros(side, dtype=dtype or torch.float32)
            tracker.highest = 0
            loss = run(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
            optimiser.step()
            del loss
            optimiser.zero_grad()
    return tracker.highest
