"""What a training reads, with digests: two runs of equal inputs and settings are the same run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.config import nearest
from medqa.errors import DataError, MissingInputError
from medqa.paths import resolve, shown
from medqa.train import checkpoint, registered
from medqa.train.base import maker_of_adapter, maker_of_model
from medqa.train.settings import names

# What says where and how often to write, not what is learned: a resumed run may change it.
_NOT_DECISIVE = {"output_dir", "logging_steps", "save_total_limit", "report_to", "plot_loss"}


def decisive(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that decide what is learned."""
    return {key: value for key, value in values.items() if key not in _NOT_DECISIVE}


def digests(values: Mapping[str, Any], config: Path) -> dict[str, str]:
    """Returns the digests of model, adapters and data files.

    Args:
        values: A complete recipe (`settings.has_required`).
        config: Its file; the recipe that makes a missing adapter is looked for beside it.

    Raises:
        MissingInputError: One of them is not there; names the step that makes it.
        DataError: The registry cannot be read.
    """
    model = values["model_name_or_path"]
    if not (resolve(model) / "config.json").is_file():
        how = maker_of_model(resolve(model), config)
        raise MissingInputError(f"model {model} does not exist or is not whole; {how}")
    files = _data_files(values)
    for name in names(values.get("adapter_name_or_path")):
        files += _adapter_files(name, config)
    return provenance.model_digest(model) | provenance.digest(*files)


def _adapter_files(name: str, config: Path) -> list[Path]:
    """Returns the files of an adapter on which `config` builds."""
    described = resolve(name) / "adapter_config.json"
    weights = checkpoint.weights(resolve(name))
    if not weights or not checkpoint.is_whole(described):
        raise MissingInputError(
            f"adapter {name} does not exist or is not whole; {maker_of_adapter(name, config)}"
        )
    return [described, *weights]


def _data_files(values: Mapping[str, Any]) -> list[Path]:
    """Returns the files of the data sets that `values` names, as the registry has them."""
    entries, registry = registered.registry(values), registered.place(values)
    wanted = [name for key in ("dataset", "eval_dataset") for name in names(values.get(key))]
    unknown = [name for name in wanted if name not in entries]
    if unknown:
        told = ", ".join(f"{name!r}{nearest(name, entries)}" for name in unknown)
        known = ", ".join(entries) or "no data set"
        raise MissingInputError(
            f"data set {told} is not in {shown(registry)} (found: {known}); "
            "run: python scripts/convert.py configs/data/<name>.yaml"
        )
    elsewhere = [name for name in wanted if not entries[name].get("file_name")]
    if elsewhere:
        raise DataError(
            f"data set {', '.join(elsewhere)} names no file in {shown(registry)}: expected one on "
            "this disk; run: python scripts/convert.py configs/data/<name>.yaml"
        )
    files = [registry.parent / entries[name]["file_name"] for name in wanted]
    for name, file in zip(wanted, files, strict=True):
        if not file.is_file():
            raise MissingInputError(
                f"data set {name!r} is registered, but {shown(file)} is gone; "
                "run: python scripts/convert.py configs/data/<name>.yaml"
            )
    return files
