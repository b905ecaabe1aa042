"""What must be true of a model's files before it is served."""

from medqa import provenance
from medqa.errors import CheckpointError, MissingInputError
from medqa.paths import resolve, shown
from medqa.serve.settings import Settings

_MADE_BY = {
    "models/tiny": "make demo",
    "models/tiny-med": "make demo",
    "models/chatglm3-6b": "make model",
    "models/chatglm3-6b-med": "make export",
}


def require_present(settings: Settings) -> None:
    """Looks at names and records alone, which takes no time.

    Raises:
        MissingInputError: Model or adapter is not there; names the command that makes it.
        CheckpointError: It is no imported model, or the adapter was trained on another.
    """
    model = resolve(settings.model_name_or_path)
    cure = _MADE_BY.get(shown(model), f"python scripts/import_model.py SOURCE {shown(model)}")
    config = provenance.read(model / "config.json")
    if config is None:
        raise MissingInputError(f"model {shown(model)} is not there; run: {cure}")
    if config.get("model_type") != "glm" or "auto_map" in config:
        raise CheckpointError(
            f"{shown(model)} is a {config.get('model_type')!r} checkpoint, expected an imported "
            "one ('glm' without code of its own); run: python scripts/import_model.py "
            f"{shown(model)} models/NAME"
        )
    if settings.adapter_name_or_path is None:
        return
    adapter = resolve(settings.adapter_name_or_path)
    cure = "make demo" if shown(adapter).startswith("saves/tiny/") else "make train"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter / name).is_file():
            raise MissingInputError(f"{shown(adapter)} holds no {name}; run: {cure}")
    provenance.require_same_base(adapter, model)


def require_whole(settings: Settings) -> None:
    """Holds the model's files against the record beside them, which reads all of them.

    A folder without a record (an export of plain LLaMA-Factory) has nothing to be held against.

    Raises:
        CheckpointError: They are not what was checked after the merge, or after the import.
    """
    model = resolve(settings.model_name_or_path)
    if (model / "medqa_export.json").is_file():
        from medqa.export.record import verify

        verify(model)
        return
    recorded = (provenance.read(model / "medqa_import.json") or {}).get("fingerprint")
    if recorded is None:
        return
    from medqa.model.fingerprint import weights_fingerprint

    found = weights_fingerprint(model)
    if found != recorded:
        cure = _MADE_BY.get(shown(model), "python scripts/import_model.py SOURCE")
        raise CheckpointError(
            f"the weights in {shown(model)} are not those that were imported ({found[:23]} in "
            f"place of {recorded[:23]}); import them again: {cure}"
        )
