"""Merging an adapter into its base with LLaMA-Factory's own export, and checking the result."""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.config import load_llamafactory
from medqa.errors import (
    CheckFailedError,
    CheckpointError,
    ConfigError,
    MissingInputError,
    StepError,
)
from medqa.export.modelfile import modelfile
from medqa.files import atomic_folder, require_empty
from medqa.paths import project_root, resolve, shown

RECORD = "medqa_export.json"

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

_TEXTS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""Taken from the base as they are: LLaMA-Factory changes the list of special tokens and may change
the generation settings, and merging changes neither."""


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


def export(config: str | Path, overrides: Sequence[str], *, overwrite: bool = False) -> Path:
    """Merges the adapter that an export YAML names and checks that it answers as before.

    Args:
        config: A complete export YAML of LLaMA-Factory.
        overrides: ``key=value``, as its own command line takes them.
        overwrite: Replace a result made from other inputs.

    Returns:
        The folder of the merged model: safetensors, the base's tokenizer, chat template and
        generation settings, Modelfile, and the record.

    Raises:
        ConfigError: Everything that is wrong with the YAML.
        MissingInputError: Base or adapter are not there or not finished.
        CheckpointError: The adapter was not trained on this base, or cannot be merged into any.
        TargetError: The target holds something made from other inputs.
        CheckFailedError: The merged model does not answer as the base with its adapter.
    """
    job = _job(load_llamafactory(config, overrides, "infer"), str(config))
    _require_base(job.base)
    _require_adapter(job)
    inputs = provenance.model_digest(job.base) | provenance.digest(
        job.adapter / "adapter_config.json", job.adapter / "adapter_model.safetensors"
    )
    record = job.target / RECORD
    if provenance.is_current(record, step="export", inputs=inputs, config=job.values):
        sys.stdout.write(f"up to date: {shown(job.target)}\n")
        return job.target
    if not overwrite:
        require_empty(job.target)  # before the seconds that LLaMA-Factory takes to load
    sys.stdout.write(f"merging {shown(job.adapter)} into {shown(job.base)}\n")
    sys.stdout.flush()
    with atomic_folder(job.target, overwrite=overwrite) as staging:
        _merge(job, staging)
        _finish(job, staging)
        _record(job, staging, inputs)
    sys.stdout.write(f"{shown(job.target)}: merged model, checked\n")
    return job.target


def _job(values: dict[str, Any], source: str) -> Job:
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


def _require_base(base: Path) -> None:
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


def _require_adapter(job: Job) -> None:
    """Refuses an adapter that is absent, unfinished, of a kind without weights, of another base."""
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
    kind = (provenance.read(job.adapter / "adapter_config.json") or {}).get("peft_type")
    if kind in _WITHOUT_WEIGHTS:
        raise CheckpointError(
            f"{shown(job.adapter)} is of the kind {kind}, which changes no weight of the base, so "
            "there is nothing to merge; use it as an adapter (scripts/compare.py, PEFT), or train "
            f"one that can be merged: {cure}"
        )
    if not provenance.require_same_base(job.adapter, job.base):
        sys.stderr.write(
            f"warning: {shown(job.adapter)} was trained without scripts/train.py, so nothing "
            "proves that its base was this one; see that the parity below is right\n"
        )


def _merge(job: Job, staging: Path) -> None:
    """Runs LLaMA-Factory's export into `staging`, with its warnings and without its chatter."""
    os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "WARNING")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from llamafactory.train.tuner import export_model
    from transformers.utils import logging

    from medqa import remedies

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    paths = {
        "model_name_or_path": str(job.base),
        "adapter_name_or_path": str(job.adapter),
        "export_dir": str(staging),
    }
    with remedies.applied():
        try:
            export_model(dict(job.values) | paths)
        except Exception as error:
            cause = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise StepError(
                f"LLaMA-Factory could not merge {shown(job.adapter)} into {shown(job.base)} "
                f"({cause}); nothing was written"
            ) from error


def _finish(job: Job, staging: Path) -> None:
    for name in _TEXTS:
        (staging / name).unlink(missing_ok=True)
        if (job.base / name).is_file():
            shutil.copyfile(job.base / name, staging / name)
    config = json.loads((staging / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config or list(staging.glob("*.py")):
        raise CheckFailedError("the merged model carries code of its own; nothing was written")
    if not list(staging.glob("*.safetensors")):
        raise CheckFailedError("LLaMA-Factory wrote no safetensors; nothing was written")
    text = modelfile(context=int(config["max_position_embeddings"]))
    (staging / "Modelfile").write_text(text, encoding="utf-8")


def _record(job: Job, staging: Path, inputs: Mapping[str, str]) -> None:
    from medqa.export import parity
    from medqa.model.fingerprint import weights_fingerprint

    result = parity.check(job.base, job.adapter, staging, job.device)
    sys.stdout.write(f"parity: {result}\n")
    provenance.write(
        staging / RECORD,
        step="export",
        inputs=inputs,
        config=job.values,
        outputs=sorted(f for f in staging.iterdir() if f.is_file()),
        base=shown(job.base),
        adapter=shown(job.adapter),
        fingerprint=weights_fingerprint(staging),
        parity=result.record,
    )
