"""One cell of gpu.py's table: what is asked for in a JSON file, measured in a process of its own.

    python scripts/bench/gpu_cell.py SPEC.json RESULT.json

    device   the name, the memory, and the speed of a large matrix product
    build    a random GLM in native layout, made on the device
    liger    the loss with and without Liger's fused cross-entropy, in bfloat16 and float32
    train    a LLaMA-Factory recipe, with the remedies in place, then its evaluation
    answer   answers and losses as compare makes them

Out of memory is a result. The cap is put on PyTorch's allocator before anything is on the card,
less what the CUDA context takes, so that both together stay below it.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

GIB = 1 << 30
PREFIX = 128  # virtual tokens, the default of scripts/begin_prefix.py
LENT = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def device(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns what the device is and how fast it multiplies matrices of 8192 in bfloat16."""
    import torch

    if not torch.cuda.is_available():
        return {"name": "cpu", "memory": 0, "bf16": False, "matmul": 0.0, "fa2": False}
    from transformers.utils.import_utils import is_flash_attn_2_available

    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        matrix @ matrix
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(10):
        matrix @ matrix
    torch.cuda.synchronize()
    return {
        "name": torch.cuda.get_device_name(),
        "memory": torch.cuda.get_device_properties(0).total_memory,
        "bf16": torch.cuda.is_bf16_supported(),
        "matmul": 10 * 2 * 8192**3 / (time.perf_counter() - started),
        "fa2": bool(is_flash_attn_2_available()),
    }


def build(spec: dict[str, Any]) -> dict[str, Any]:
    """Writes a random GLM of the sizes in `spec`, with a tokenizer that is lent to it."""
    import torch
    from transformers import GlmConfig, GlmForCausalLM

    from medqa.files import atomic_folder

    torch.manual_seed(0)
    types: Any = GlmConfig
    config = types(**spec["sizes"], pad_token_id=0, eos_token_id=[2], attention_bias=True)
    torch.set_default_dtype(getattr(torch, spec["dtype"]))
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        make: Any = GlmForCausalLM
        model = make(config)
    torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = [2], 0
    with atomic_folder(Path(spec["target"]), overwrite=True) as folder:
        model.save_pretrained(folder, max_shard_size="2GB")
        for name in LENT:
            shutil.copy(Path(spec["tokenizer"]) / name, folder / name)
    return {"parameters": model.num_parameters()}


def liger(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns the losses of a small GLM without and with Liger, by data type."""
    import torch

    if not torch.cuda.is_available():
        return {"status": "no GPU"}
    from types import SimpleNamespace

    from transformers import GlmConfig, GlmForCausalLM

    from medqa import remedies

    types: Any = GlmConfig
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 2}
    config = types(**sizes, num_attention_heads=8, num_key_value_heads=2, vocab_size=65024)
    found = {}
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(0)
        make: Any = GlmForCausalLM
        model = make(config).to("cuda", getattr(torch, dtype)).train()
        ids = torch.randint(5, 65000, (1, 1024), device="cuda")
        with remedies.applied():
            from llamafactory.model import loader

            plain = model(input_ids=ids, labels=ids, use_cache=False).loss.item()
            wanted = SimpleNamespace(enable_liger_kernel=True)
            loader.apply_liger_kernel(config, wanted, is_trainable=True, require_logits=False)
            fused = model(input_ids=ids, labels=ids, use_cache=False)
            assert fused.logits is None, "the fused loss was expected to make no logits"
            found[dtype] = [plain, fused.loss.item()]
    return {"losses": found}


def train(spec: dict[str, Any]) -> dict[str, Any]:
    """Trains and evaluates a recipe; returns peaks in bytes, tokens and seconds."""
    import torch

    from medqa import remedies
    from medqa.train import prefix

    values = spec["values"]
    with ExitStack() as stack:
        stack.enter_context(remedies.applied())
        if "adapter_name_or_path" in values:
            names = ("model_name_or_path", "adapter_name_or_path")
            changes = [f"{name}={values[name]}" for name in names]
            prefix.begin(spec["recipe"], changes, virtual_tokens=PREFIX, overwrite=True)
            stack.enter_context(prefix.trainable())
        from llamafactory.train.tuner import run_exp

        meter = _meter(spec["warm_up"])
        try:
            run_exp(dict(values), callbacks=[meter])
        except torch.OutOfMemoryError:
            if "steps" not in meter.found:
                raise
            meter.found["status"] = "out of memory in evaluation"
    return dict(meter.found)


def answer(spec: dict[str, Any]) -> dict[str, Any]:
    """Answers questions and measures losses as compare does; returns peaks and tokens."""
    from medqa.compare.generate import Pair

    rows = [json.loads(line) for line in Path(spec["rows"]).read_text("utf-8").splitlines()]
    pairs = [(row["instruction"], row["output"]) for row in rows[: spec["count"]]]
    pair, size = Pair(spec["model"], spec["adapter"]), spec["batch_size"]
    found: dict[str, Any] = {}
    _reset()
    list(pair.losses("tuned", pairs, cutoff_len=spec["cutoff_len"], batch_size=size))
    found["losses"] = _peak()
    _reset()
    started = time.perf_counter()
    asked = [question for question, _ in pairs]
    longest = spec["max_new_tokens"]
    batches = pair.answers("tuned", asked, max_new_tokens=longest, batch_size=size)
    tokens = sum(one.tokens for batch in batches for _, one in batch)
    return found | {
        "answers": _peak(),
        "tokens": tokens,
        "seconds": time.perf_counter() - started,
    }


def _meter(warm_up: int) -> Any:
    """Returns a TrainerCallback that measures from step `warm_up` to the last."""
    import torch
    from transformers import TrainerCallback

    class Meter(TrainerCallback):
        """Counts real and computed tokens where they enter the model, and time and memory.

        Real tokens are those other than the padding's, whose id stands in no text.
        """

        def __init__(self) -> None:
            self.found: dict[str, Any] = {}
            self.real: Any = 0
            self.computed = 0

        def count(self, module: Any, given: Any, named: dict[str, Any]) -> None:
            if torch.is_grad_enabled() and module.training:
                ids: Any = named.get("input_ids", given[0] if given else None)
                self.real = self.real + (ids != 0).sum()
                self.computed += ids.numel()

        def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            named["model"].register_forward_pre_hook(self.count, with_kwargs=True)
            self.found["loaded"] = _peak()
            self.found["trainable"] = sum(
                weight.numel() for weight in named["model"].parameters() if weight.requires_grad
            )
            _reset()

        def on_step_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if state.global_step == warm_up:
                _wait()
                self.real, self.computed, self.started = 0, 0, time.perf_counter()

        def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            _wait()
            self.found |= {
                "seconds": time.perf_counter() - self.started,
                "real": int(self.real),
                "computed": self.computed,
                "steps": state.global_step,
                "train": _peak(),
                "loss": [line["loss"] for line in state.log_history if "loss" in line],
            }
            _reset()

        def on_evaluate(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            self.found["evaluate"] = _peak()

    return Meter()


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _reset() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak() -> dict[str, int]:
    """Returns bytes: allocated and reserved at their highest, and what the device has in use.

    Without a GPU all three are the most that this process held.
    """
    import resource

    import torch

    if not torch.cuda.is_available():
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"allocated": used, "reserved": used, "device": used}
    free, total = torch.cuda.mem_get_info()
    return {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "device": total - free,
    }


def _cap(limit: int) -> int:
    """Keeps this process within `limit` bytes of the card; returns what the context takes of it."""
    import torch

    if not limit or not torch.cuda.is_available():
        return 0
    torch.zeros(1, device="cuda")
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction(min((limit - context) / total, 1.0))
    return context


KINDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    work.__name__: work for work in (device, build, liger, train, answer)
}


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Does what `spec` asks for; out of memory is told from other failures."""
    import torch

    from medqa.errors import StepError

    context = _cap(spec.get("cap", 0))
    try:
        return {"status": "ok", "context": context, **KINDS[spec["kind"]](spec)}
    except ImportError as error:
        return {"status": f"not installed: {' '.join(str(error).split())[:200]}"}
    except (torch.OutOfMemoryError, StepError) as error:
        if "memory" not in str(error):
            raise
        said = " ".join(str(error).split())[:300]
        return {"status": "out of memory", "context": context, "said": said, "train": _peak()}


def main() -> None:
    """Reads the spec, and writes the result in one go."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result = measure(spec)
    from medqa.files import atomic_file

    with atomic_file(Path(sys.argv[2])) as out:
        out.write(json.dumps(result).encode())


if __name__ == "__main__":
    main()
