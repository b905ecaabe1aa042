"""The model that a recipe trains: is it there, whole, native, one that chats; and its adapter's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.config import read_yaml
from medqa.errors import CheckpointError, ConfigError, MedqaError
from medqa.paths import resolve, shown
from medqa.train.findings import Findings
from medqa.train.folder import STARTED
from medqa.train.settings import cutoff, names

IMPORTED, EXPORTED = "medqa_import.json", "medqa_export.json"
_EXPORT = "export.yaml"
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def look(values: Mapping[str, Any], source: str, found: Findings) -> dict[str, Any] | None:
    """Looks at the model folder.

    Args:
        values: The recipe.
        source: Its file.
        found: Where it goes.

    Returns:
        The model's ``config.json``; None if it cannot be trained as it is.
    """
    folder = resolve(values["model_name_or_path"])
    config = provenance.read(folder / "config.json")
    if config is None:
        found.problem(
            "model",
            f"{shown(folder)} does not exist or is not whole",
            maker_of_model(folder, source),
        )
        return None
    if config.get("model_type") == "chatglm" or config.get("auto_map"):
        found.problem(
            "model",
            f"{shown(folder)} is in a layout that needs code of its own",
            f"run: python scripts/import_model.py {shown(folder)} models/NAME, then "
            "model_name_or_path=models/NAME",
        )
        return None
    if gone := _absent(folder):
        found.problem(
            "model", f"{shown(folder)} lacks {', '.join(gone)}", maker_of_model(folder, source)
        )
        return None
    record = provenance.read(folder / IMPORTED)
    if record is None and provenance.read(folder / EXPORTED) is None:
        found.warning(
            "model",
            f"nothing records where {shown(folder)} comes from, so its adapters cannot be told "
            "from another model's",
            maker_of_model(folder, source),
        )
    elif values.get("stage") != "pt" and (seen := base_of(folder, record or {})):
        _tell_base(folder, seen, found)
    else:
        origin = f", imported from {record['origin']}" if record and "origin" in record else ""
        found.ok("model", f"{shown(folder)} is whole{origin}")
    _look_length(values, config, found)
    return config


def base_of(folder: Path, record: Mapping[str, Any]) -> str:
    """Returns what says that this is the base model, which never learned to chat, or nothing.

    The two do not differ in layout or tokenizer, so only names tell: the folder's, the one that
    the import recorded, and of the original (if it is still there) its own and its download's.
    """
    origin = str(record.get("origin", ""))
    original = resolve(origin) if origin else folder
    config = provenance.read(original / "config.json") or {}
    download = provenance.read(original / "medqa_download.json") or {}
    told = {
        "its folder's name": folder.name,
        "its import's origin": Path(origin).name,
        "the original's config.json": str(config.get("_name_or_path", "")),
        "the original's download": " ".join(map(str, download.get("config", {}).values())),
    }
    return next((where for where, name in told.items() if _names_base(name)), "")


def maker_of_model(folder: Path, source: str | Path) -> str:
    """Returns the command that makes the model in `folder`; a merged one is an export's."""
    if provenance.read(folder / EXPORTED) or merged_folder(source) == folder:
        export = resolve(source).parent / _EXPORT
        return f"run: python scripts/export.py {shown(export)}"
    known = {"models/chatglm3-6b": "make model", "models/tiny": "make demo"}
    command = known.get(shown(folder), f"python scripts/import_model.py ORIGINAL {shown(folder)}")
    return f"run: {command}"


def merged_folder(source: str | Path) -> Path | None:
    """Returns the folder that the export YAML beside a recipe writes; None where there is none."""
    try:
        target = read_yaml(resolve(source).parent / _EXPORT).get("export_dir")
    except (OSError, MedqaError):
        return None
    return resolve(target) if target else None


def maker_of_adapter(adapter: str, source: str | Path) -> str:
    """Returns the command that writes `adapter`: a recipe beside `source` that has it as output."""
    config = resolve(source)
    for recipe in sorted(config.parent.glob("*.yaml")):
        try:
            output = read_yaml(recipe).get("output_dir")
        except ConfigError:
            continue
        if isinstance(output, str) and recipe != config and resolve(output) == resolve(adapter):
            return f"run: python scripts/train.py {shown(recipe)}"
    if "prefix" in adapter:
        return f"run: python scripts/begin_prefix.py {shown(config)}"
    return "train it first, by the recipe that has it as output_dir, or name another adapter"


def look_adapter(values: Mapping[str, Any], source: str, found: Findings) -> None:
    """Looks whether the adapters and the checkpoint to go on from belong to the model."""
    given = names(values.get("adapter_name_or_path"))
    resumed = values.get("resume_from_checkpoint")
    given += [resumed] if isinstance(resumed, str) else []
    base = resolve(values["model_name_or_path"])
    for name in given:
        folder = resolve(name)
        adapter = provenance.read(folder / "adapter_config.json")
        if adapter is None and (name != resumed or not (folder / "trainer_state.json").is_file()):
            how = maker_of_adapter(name, source)
            found.problem("adapter", f"{shown(folder)} holds no adapter", how)
            continue
        _look_belonging(folder, base, adapter or {}, found)
        kind = (adapter or {}).get("peft_type")
        if kind == "PREFIX_TUNING" and not values.get("disable_gradient_checkpointing"):
            found.problem(
                "adapter",
                "a prefix cannot be trained with gradient checkpointing",
                "disable_gradient_checkpointing=true",
            )


def _look_belonging(folder: Path, base: Path, adapter: Mapping[str, Any], found: Findings) -> None:
    """Compares the fingerprint of the model that `folder` was trained on with that of `base`."""
    try:
        # A checkpoint stands within the folder of its run.
        if any(provenance.require_same_base(place, base) for place in (folder, folder.parent)):
            found.ok("adapter", f"{shown(folder)} was trained on this model")
            return
    except CheckpointError as error:
        text, _, cure = str(error).rpartition("; ")
        found.problem("adapter", text, cure)
        return
    ((_, fingerprint),) = provenance.model_digest(base).items()
    started = provenance.read(folder.parent / STARTED) or {}
    if fingerprint in started.get("inputs", {}).values():
        found.ok("adapter", f"{shown(folder)} was begun on this model")
        return
    named = str(adapter.get("base_model_name_or_path") or "")
    if not started and named and resolve(named).resolve() == base.resolve():
        found.ok("adapter", f"{shown(folder)} names this model as its base")
        return
    found.problem(
        "adapter",
        f"{shown(folder)} was trained on {named or 'another model'}, not on {shown(base)}",
        f"model_name_or_path={named or '...'}, or train it again (make train)",
    )


def _tell_base(folder: Path, seen: str, found: Findings) -> None:
    text = f"{shown(folder)} is the base model, which never learned to chat ({seen} says so)"
    if _names_base(folder.name):  # whoever writes the recipe sees the name in it
        found.warning(
            "model", text, "for ChatGLM3: make model, model_name_or_path=models/chatglm3-6b"
        )
    else:
        found.problem(
            "model",
            text,
            f"run: make model OVERWRITE=1, or if it is meant, import it as {shown(folder)}-base",
        )


def _names_base(name: str) -> bool:
    return "base" in name.lower().replace("_", "-").replace("/", "-").replace(" ", "-").split("-")


def _look_length(values: Mapping[str, Any], config: Mapping[str, Any], found: Findings) -> None:
    most = config.get("max_position_embeddings")
    if isinstance(most, int) and cutoff(values) > most and not values.get("rope_scaling"):
        found.problem(
            "length",
            f"cutoff_len is {cutoff(values):,}, and the model was made for {most:,} tokens",
            f"cutoff_len={most}",
        )


def _absent(folder: Path) -> list[str]:
    """Returns the files that the model lacks, or that are not of the size that was recorded."""
    index = provenance.read(folder / _INDEX)
    shards = sorted(set(index.get("weight_map", {}).values())) if index else [_SINGLE]
    sizes: dict[str, int] = {}
    for name in (IMPORTED, EXPORTED):
        sizes |= (provenance.read(folder / name) or {}).get("outputs", {})
    wanted = {*shards, "tokenizer.json", "tokenizer_config.json", *sizes}
    return sorted(
        name
        for name in wanted
        if not (file := folder / name).is_file()
        or (name in sizes and name in shards and file.stat().st_size != sizes[name])
    )
