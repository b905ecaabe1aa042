"""What is merged into what, and whether it can be."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.config import load_llamafactory
from medqa.errors import CheckpointError, ConfigError, MissingInputError
from medqa.paths import project_root, resolve, shown

_NEEDED = {
    "model_name_or_path": None,
    "adapter_name_or_path": None,
    "template": "chatglm3",
    "finetuning_type": "lora",
    "export_dir": None,
}
"""Key to the only value that can be merged into ChatGLM3's format; None where any will do."""

_REFUSED = {
    "trust_remote_code": "no code of a checkpoint is ever run",
    "export_hub_model_id": "it would be published before it is checked",
    "export_quantization_bit": "an adapter cannot be merged into quantized weights",
    "quantization_bit": "an adapter cannot be merged into quantized weights",
}
_WITHOUT_WEIGHTS = {
    "ADAPTION_PROMPT",
    "CPT",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "PROMPT_TUNING",
}
"""Kinds of PEFT's adapters that stand beside the base's weights and cannot be added to them."""


@dataclass(frozen=True)
class Job:
    """What is merged into what."""

    base: Path
    adapter: Path
    target: Path
    values: Mapping[str, Any]

    @property
    def device(self) -> str:
        """``cpu`` (LLaMA-Factory's default) or ``auto``."""
        return str(self.values.get("export_device", "cpu"))


def read(config: str | Path, overrides: Sequence[str]) -> Job:
    """Reads an export YAML of LLaMA-Factory.

    Raises:
        ConfigError: Everything that is wrong with it.
    """
    values, source = load_llamafactory(config, overrides, "infer"), str(config)
    problems = [f"missing key {key!r}" for key in _NEEDED if not values.get(key)]
    problems += [
        f"{key}: expected {only!r}, found {values[key]!r}"
        for key, only in _NEEDED.items()
        if only and values.get(key) not in (None, "", only)
    ]
    problems += [f"{key}: {why}" for key, why in _REFUSED.items() if values.get(key)]
    if "," in str(values.get("adapter_name_or_path")):
        problems.append("adapter_name_or_path: expected one adapter, found several")
    if problems:
        raise ConfigError(source, problems)
    job = Job(
        base=resolve(values["model_name_or_path"]),
        adapter=resolve(values["adapter_name_or_path"]),
        target=resolve(values["export_dir"]),
        values=values,
    )
    inside = [p for p in (job.base, job.adapter, project_root()) if p.is_relative_to(job.target)]
    if inside:
        raise ConfigError(source, [f"export_dir: it would replace {shown(inside[0])}"])
    return job


def require_base(base: Path) -> None:
    """Raises MissingInputError or CheckpointError if `base` is no imported model."""
    cure = {"models/tiny": "make demo", "models/chatglm3-6b": "make model"}.get(
        shown(base), f"python scripts/import_model.py SOURCE {shown(base)}"
    )
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise MissingInputError(f"base model {shown(base)} is not there; run: {cure}") from None
    if config.get("model_type") != "glm" or "auto_map" in config:
        raise CheckpointError(
            f"{shown(base)} is a {config.get('model_type')!r} checkpoint, expected an imported "
            f"one ('glm' without code of its own); run: python scripts/import_model.py "
            f"{shown(base)} models/NAME"
        )


def require_adapter(job: Job) -> None:
    """Refuses an adapter that is absent, unfinished, of a kind without weights, of another base.

    Raises:
        MissingInputError: It is not there or its training has not finished.
        CheckpointError: It cannot be merged, or was trained on another base.
    """
    recipe = "tiny" if shown(job.base) == "models/tiny" else "chatglm3-6b"
    cure = f"make train RECIPE={recipe}"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (job.adapter / name).is_file():
            raise MissingInputError(f"{shown(job.adapter)} holds no {name}; run: {cure}")
    if not (job.adapter / "all_results.json").is_file():  # the last file that the trainer writes
        raise MissingInputError(
            f"the training in {shown(job.adapter)} has not finished (no all_results.json); "
            f"run: {cure}"
        )
    config = provenance.read(job.adapter / "adapter_config.json") or {}
    kind = config.get("peft_type")
    if kind in _WITHOUT_WEIGHTS:
        raise CheckpointError(
            f"{shown(job.adapter)} is of the kind {kind}, which changes no weight of the base, so "
            "there is nothing to merge; use it as an adapter (scripts/compare.py, PEFT), or train "
            f"one that can be merged: {cure}"
        )
    if kind != "LORA":
        raise CheckpointError(
            f"{shown(job.adapter)} is of the kind {kind}, expected LORA (rsLoRA, DoRA and PiSSA "
            f"too), whose merge can be checked weight by weight; run: {cure}"
        )
    if not provenance.require_same_base(job.adapter, job.base):
        _require_named(job, str(config.get("base_model_name_or_path")))


def _require_named(job: Job, named: str) -> None:
    """Refuses an adapter without a record whose own configuration names a model that is another."""
    other = resolve(named)
    if other.is_dir() and other.resolve() != job.base.resolve():
        theirs, ours = (provenance.model_digest(folder) for folder in (other, job.base))
        if set(theirs.values()) != set(ours.values()):
            raise CheckpointError(
                f"{shown(job.adapter)} says that it was trained on {shown(other)}, and "
                f"{shown(job.base)} is another model; name the right base"
            )
    sys.stderr.write(
        f"warning: {shown(job.adapter)} was trained without scripts/train.py, so nothing proves "
        f"that its base was this one (it names {named}); what follows proves the merge alone\n"
    )
