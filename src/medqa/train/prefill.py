"""What LlamaBoard shows before anybody has touched it: our model, recipe and data.

Two files, which LLaMA-Factory's own ``llamafactory-cli webui`` reads as well, hold the model and
the recipes on offer; the recipe itself is filled in where `llamaboard` serves the page. Elements
have names such as ``train.learning_rate`` (``llamafactory/webui/components``).
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from medqa.config import load_llamafactory, read_yaml
from medqa.files import atomic_file
from medqa.paths import resolve
from medqa.train.registered import registry
from medqa.train.settings import names

MODEL_NAME = "ChatGLM3-6B-Chat"
"""The name under which LLaMA-Factory lists ChatGLM3-6B; it brings template chatglm3."""

DEFAULT_MODELS = ("models/chatglm3-6b", "models/tiny")
"""Where imported models are; the first that is there is filled in."""

RECIPES = {"medqa.yaml": "chatglm3-6b", "medqa-tiny.yaml": "tiny"}
"""File under llamaboard_config to the recipe whose values it offers."""

_OFFER = (
    "# What 载入训练参数 loads: {}, written anew at every start; keep yours under another name.\n"
)
_ALL = str(10**9)
"""Of a data set's rows, all: the page's own default takes the first 100,000."""

_WIDGETS: Mapping[str, tuple[str, type]] = {
    "learning_rate": ("train.learning_rate", str),
    "num_train_epochs": ("train.num_train_epochs", str),
    "max_grad_norm": ("train.max_grad_norm", str),
    "max_samples": ("train.max_samples", str),
    "cutoff_len": ("train.cutoff_len", int),
    "per_device_train_batch_size": ("train.batch_size", int),
    "gradient_accumulation_steps": ("train.gradient_accumulation_steps", int),
    "lr_scheduler_type": ("train.lr_scheduler_type", str),
    "logging_steps": ("train.logging_steps", int),
    "save_steps": ("train.save_steps", int),
    "warmup_steps": ("train.warmup_steps", int),
    "packing": ("train.packing", bool),
    "neat_packing": ("train.neat_packing", bool),
    "report_to": ("train.report_to", str),
    "lora_rank": ("train.lora_rank", int),
    "lora_alpha": ("train.lora_alpha", int),
    "lora_dropout": ("train.lora_dropout", float),
    "lora_target": ("train.lora_target", str),
    "use_rslora": ("train.use_rslora", bool),
    "use_dora": ("train.use_dora", bool),
    "dataset_dir": ("train.dataset_dir", str),
}
"""Key of a recipe to the UI's element and the type it holds."""

_CHOSEN_IN_THE_UI = (
    "model_name_or_path",
    "template",
    "finetuning_type",
    "stage",
    "do_train",
    "dataset",
    "output_dir",
    "overwrite_output_dir",
    "bf16",
    "fp16",
    "enable_liger_kernel",
    "plot_loss",
    "trust_remote_code",
)
_WATCHING = (
    "eval_dataset",
    "eval_strategy",
    "eval_steps",
    "load_best_model_at_end",
    "metric_for_best_model",
    "early_stopping_steps",
    "per_device_eval_batch_size",
)
"""Keys of a recipe that make no sense without a data set to watch."""


def write(folder: Path, *, chosen: bool) -> Path | None:
    """Writes what the UI reads at its start, keeping what the user has set there.

    Args:
        folder: The model.
        chosen: The user named it, so it replaces a path that is there.

    Returns:
        The ChatGLM3 that the page will show: `folder`, or another that the user has set; None if
        the user has gone on to another kind of model.
    """
    file = resolve("llamaboard_cache/user_config.yaml")
    settings = read_yaml(file) if file.is_file() else {}
    # The UI fails with a KeyError where one of these is missing.
    settings = {"lang": None, "hub_name": None, "last_model": None, "cache_dir": None} | settings
    settings["lang"] = settings["lang"] or "zh"
    paths = dict(settings.get("path_dict") or {})
    known = Path(paths.get(MODEL_NAME, ""))
    ours = known in {resolve(m) for m in DEFAULT_MODELS}
    if chosen or ours or not known.is_absolute() or not known.is_dir():
        paths[MODEL_NAME] = str(folder)
    settings["path_dict"] = paths
    if chosen or not settings["last_model"]:
        settings["last_model"] = MODEL_NAME
    _write(file, settings)
    for name, recipe in RECIPES.items():
        offer, source = resolve("llamaboard_config") / name, f"configs/{recipe}/lora_sft.yaml"
        if resolve(source).is_file() and (not offer.exists() or _is_ours(offer)):
            values = elements(load_llamafactory(resolve(source), [], "train"))
            _write(offer, values, head=_OFFER.format(source))
    return Path(paths[MODEL_NAME]) if settings["last_model"] == MODEL_NAME else None


def values(model: Path) -> dict[str, Any]:
    """Returns what the page shows from the start, by element: the recipe of `model`.

    A data set that has not been converted is left out with a warning, and so is the watching of
    one.
    """
    recipe, settings = _recipe_of(model)
    if not settings:
        return {}
    known = registry(settings)
    watched = names(settings.get("eval_dataset"))
    absent = [name for name in names(settings.get("dataset")) + watched if name not in known]
    if absent:
        sys.stderr.write(
            f"warning: {', '.join(absent)} of configs/{recipe}/lora_sft.yaml not converted yet, so "
            "not filled in; run: make data, or python scripts/convert.py configs/data/NAME.yaml\n"
        )
    if not set(watched) <= known.keys():
        settings = {key: value for key, value in settings.items() if key not in _WATCHING}
    found = elements(settings)
    found["train.dataset"] = [name for name in found["train.dataset"] if name in known]
    # The page has it already, and would clear the data set if it were set again.
    del found["train.training_stage"]
    return found | _afterwards(recipe, model)


def elements(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a training recipe as the UI's elements.

    What has no element of its own goes into the field for extra arguments, so that a run from the
    page and one from the YAML are the same.
    """
    found: dict[str, Any] = {
        "train.training_stage": "Supervised Fine-Tuning",
        "train.dataset": names(recipe.get("dataset")),
        "train.max_samples": _ALL,
        "train.compute_type": next((t for t in ("bf16", "fp16") if recipe.get(t)), "fp32"),
        "top.finetuning_type": recipe.get("finetuning_type", "lora"),
        "top.booster": "liger_kernel" if recipe.get("enable_liger_kernel") else "auto",
    }
    extra = {}
    for key, value in recipe.items():
        if key in _WIDGETS:
            element, kind = _WIDGETS[key]
            found[element] = kind(value)
        elif key not in _CHOSEN_IN_THE_UI:
            extra[key] = value
    found["train.extra_args"] = json.dumps(extra)
    return found


def _recipe_of(model: Path) -> tuple[str, dict[str, Any]]:
    """Returns the recipe that trains `model`, else the first there is, with its folder's name."""
    found = {
        name: load_llamafactory(file, [], "train")
        for name in RECIPES.values()
        if (file := resolve(f"configs/{name}/lora_sft.yaml")).is_file()
    }
    own = (n for n, v in found.items() if resolve(str(v.get("model_name_or_path"))) == model)
    name = next(own, next(iter(found), ""))
    return name, found.get(name, {})


def _afterwards(recipe: str, model: Path) -> dict[str, Any]:
    """Returns the elements of the tabs Chat and Export."""
    file = resolve(f"configs/{recipe}/chat.yaml")
    chat = load_llamafactory(file, [], "infer") if file.is_file() else {}
    # What is typed into the chat is text, never a control token.
    extra = {"split_special_tokens": True, "vllm_enforce_eager": True}
    found: dict[str, Any] = {"infer.extra_args": json.dumps(extra)}
    if "max_new_tokens" in chat:
        found["infer.max_new_tokens"] = chat["max_new_tokens"]
    if chat.get("do_sample") is False:  # the page always samples; so little that it is no matter
        found |= {"infer.temperature": 0.01, "infer.top_p": 0.01}
    # Not the folder of `make export`: what lies there has been checked.
    return found | {"export.export_dir": f"models/{model.name}-webui"}


def _is_ours(offer: Path) -> bool:
    with offer.open(encoding="utf-8") as lines:
        return lines.readline().startswith(_OFFER.partition("{")[0])


def _write(file: Path, values: Mapping[str, Any], head: str = "") -> None:
    with atomic_file(file) as out:
        text = yaml.safe_dump(dict(values), allow_unicode=True, sort_keys=True)
        out.write((head + text).encode())
