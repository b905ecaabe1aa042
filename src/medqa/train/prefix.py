"""Prefix tuning with PEFT's method and LLaMA-Factory's trainer, which knows none of its own.

Keys and values of some virtual tokens stand before the text in every layer; only they are trained.
`begin` writes such a prefix untrained, and a recipe names it as ``adapter_name_or_path``; within
`trainable` LLaMA-Factory goes on training what it finds there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.config import load_llamafactory
from medqa.errors import ConfigError, MissingInputError
from medqa.files import atomic_folder
from medqa.paths import config_file, project_root, resolve, shown

RECORD = "medqa_run.json"
"""As after a training: whoever asks an adapter for its base finds it there."""

_NEEDED: Mapping[str, Any] = {
    "stage": "sft",
    "finetuning_type": "lora",
    "disable_gradient_checkpointing": True,
}


def begin(
    config: str | Path,
    overrides: Sequence[str] = (),
    *,
    virtual_tokens: int,
    overwrite: bool = False,
) -> str:
    """Writes the untrained prefix that a recipe names.

    The model's weights are not read: a prefix needs their shape alone. Its numbers are standard
    normal, as PEFT begins it, from the recipe's seed.

    Args:
        config: A training YAML of LLaMA-Factory, with ``adapter_name_or_path``.
        overrides: ``key=value`` replacements.
        virtual_tokens: Length of the prefix.
        overwrite: Replace one that was begun otherwise.

    Returns:
        One line that says what was done.

    Raises:
        ConfigError: Everything in the YAML that cannot be with a prefix.
        MissingInputError: The model is not there yet.
        TargetError: The folder holds something else.
    """
    values = load_llamafactory(config, overrides, "train")
    base, target = _places(values, shown(config_file(config)), virtual_tokens)
    inputs = provenance.model_digest(base)
    settings = {"virtual_tokens": virtual_tokens, "seed": values.get("seed", 42)}
    if provenance.is_current(target / RECORD, step="begin", inputs=inputs, config=settings):
        return f"up to date: {shown(target)}"
    with atomic_folder(target, overwrite=overwrite) as staging:
        numbers = _write(base, staging, **settings)
        provenance.write(
            staging / RECORD,
            step="begin",
            inputs=inputs,
            config=settings,
            outputs=sorted(f for f in staging.iterdir() if f.is_file()),
        )
    return f"{shown(target)}: {virtual_tokens} virtual tokens, {numbers:,} numbers, untrained"


def _places(values: dict[str, Any], source: str, virtual_tokens: int) -> tuple[Path, Path]:
    """Returns the folders of base and prefix, or raises what speaks against a prefix."""
    others = ("model_name_or_path", "output_dir")
    named = (*others, "adapter_name_or_path")
    problems = [f"missing key {key!r}" for key in named if not values.get(key)]
    problems += [
        f"{key}: prefix tuning needs {wanted!r}, found {values.get(key)!r}"
        for key, wanted in _NEEDED.items()
        if values.get(key) != wanted
    ]
    adapter = values.get("adapter_name_or_path")
    if adapter and (not isinstance(adapter, str) or "," in adapter):
        problems.append("adapter_name_or_path: expected one folder, found several")
    elif adapter:
        kept = [project_root(), *(resolve(values[key]) for key in others if values.get(key))]
        inside = [folder for folder in kept if folder.is_relative_to(resolve(adapter))]
        problems += [f"adapter_name_or_path: it would replace {shown(f)}" for f in inside]
    if virtual_tokens < 1:
        problems.append(f"virtual tokens: expected 1 or more, found {virtual_tokens}")
    if problems:
        raise ConfigError(source, problems)
    base = resolve(values["model_name_or_path"])
    try:
        kind = json.loads((base / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError):
        kind = None
    if kind != "glm":
        raise MissingInputError(
            f"expected an imported model at {shown(base)}, found {kind or 'no config.json'}; run: "
            "make model, or: python scripts/import_model.py SOURCE TARGET"
        )
    return base, resolve(values["adapter_name_or_path"])


def _write(base: Path, staging: Path, *, virtual_tokens: int, seed: int) -> int:
    """Lets PEFT write an untrained prefix for the model in `base`; returns how many numbers."""
    import torch
    from peft import PrefixTuningConfig, get_peft_model
    from transformers import GlmConfig, GlmForCausalLM

    shape = GlmConfig.from_pretrained(base)
    with torch.device("meta"):
        model = GlmForCausalLM(shape)  # type: ignore[no-untyped-call]
    # PEFT takes heads and width of keys and values from the shape: 2 groups of 128 in ChatGLM3.
    wanted = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=virtual_tokens)
    peft_model = get_peft_model(model, wanted)
    wanted.base_model_name_or_path = shown(base)
    encoder = peft_model.prompt_encoder.to_empty(device="cpu")
    (weight,) = encoder.parameters()
    torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(seed))
    peft_model.save_pretrained(staging, save_embedding_layers=False)
    return int(weight.numel())


@contextmanager
def trainable() -> Iterator[None]:
    """Lets LLaMA-Factory train a prefix that ``adapter_name_or_path`` names, packed rows too.

    Without it, as under plain ``llamafactory-cli train``, PEFT refuses.
    """
    from peft import PeftModel, PeftModelForCausalLM

    load, forward = PeftModel.__dict__["from_pretrained"], PeftModelForCausalLM.forward
    PeftModel.from_pretrained = classmethod(_from_pretrained(load.__func__))
    PeftModelForCausalLM.forward = _forward(forward)
    try:
        yield
    finally:
        PeftModel.from_pretrained, PeftModelForCausalLM.forward = load, forward


def _from_pretrained(upstream: Any) -> Any:
    """Returns the function with which LLaMA-Factory loads an adapter (``model/adapter.py``).

    Upstream: ``peft/peft_model.py``, ``PeftModel.from_pretrained`` raises ``Cannot set a prompt
    learning adapter to trainable``, because of adapters that are saved without the network that
    made them (huggingface/peft issue 2256). A prefix without projection has no such network: what
    is saved is what is trained.
    """

    @wraps(upstream)
    def from_pretrained(
        cls: Any, model: Any, model_id: Any, *args: Any, is_trainable: bool = False, **kwargs: Any
    ) -> Any:
        if not (is_trainable and is_prefix(Path(model_id))):
            return upstream(cls, model, model_id, *args, is_trainable=is_trainable, **kwargs)
        if "flash" in str(model.config._attn_implementation):
            raise ValueError("a prefix is trained with flash_attn: sdpa alone")
        loaded = upstream(cls, model, model_id, *args, is_trainable=False, **kwargs)
        loaded.active_peft_config.inference_mode = False
        loaded.prompt_encoder.requires_grad_(True)
        return loaded.train()

    return from_pretrained


def is_prefix(adapter: Path) -> bool:
    """Says whether `adapter` holds a prefix whose numbers are trained themselves."""
    config = provenance.read(adapter / "adapter_config.json") or {}
    return config.get("peft_type") == "PREFIX_TUNING" and not config.get("prefix_projection")


def _forward(upstream: Any) -> Any:
    """Returns the forward pass of a model with a prefix.

    Upstream: ``peft/peft_model.py``, ``PeftModelForCausalLM.forward`` puts ones before a
    (rows, length) mask, fails on the (rows, 1, length, length) one with which LLaMA-Factory keeps
    packed pairs apart, and drops the positions that begin anew in each pair. Here every pair sees
    the whole prefix and stands right behind it, as it does alone.
    """

    @wraps(upstream)
    def forward(
        self: Any,
        input_ids: Any = None,
        attention_mask: Any = None,
        *args: Any,
        position_ids: Any = None,
        **kwargs: Any,
    ) -> Any:
        import torch

        config = self.active_peft_config
        packed = attention_mask is not None and attention_mask.dim() == 4
        if config.peft_type != "PREFIX_TUNING" or not packed:
            if position_ids is not None:
                kwargs["position_ids"] = position_ids
            return upstream(self, input_ids, attention_mask, *args, **kwargs)
        before = config.num_virtual_tokens
        return self.base_model(
            input_ids=input_ids,
            attention_mask=torch.nn.functional.pad(attention_mask, (before, 0)),  # 0: is seen
            position_ids=position_ids + before,
            past_key_values=self.get_prompt(len(input_ids)),
            **kwargs,
        )

    return forward
