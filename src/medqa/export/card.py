"""The model card: ``README.md`` with the hub's metadata, made of the records of every step.

The metadata's keys are those of https://huggingface.co/docs/hub/model-cards.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medqa import provenance
from medqa.export.record import RECORD
from medqa.files import atomic_file, sha256
from medqa.paths import processed, project_root, resolve

CARD = "README.md"
EDITED = "edited_README.md"
QUESTION = "饮酒以后可以服用西地那非吗"

LICENCE = {
    "license": "other",
    "license_name": "chatglm3-model-license",
    "license_link": "https://huggingface.co/zai-org/chatglm3-6b/blob/main/MODEL_LICENSE",
}
"""ChatGLM3's weights, and so what is made of them."""

_SEAL = "<!-- medqa wrote this card; a card that has been edited is never overwritten. "
_PLACES = frozenset(("model_name_or_path", "dataset_dir", "output_dir", "logging_dir"))
_SPLITS = ("train", "val", "test")

State = Literal["current", "written", "edited"]


@dataclass(frozen=True)
class Origin:
    """Where a base comes from: `hub` and `repository` where it was downloaded, or made by us."""

    tiny: bool
    hub: str | None = None
    repository: str | None = None


def renew(folder: Path, *, shown_as: str) -> State:
    """Writes ``README.md`` where there is none, or an older one of ours that nobody has edited.

    It holds what the records beside the model, its adapter, its data and the last comparison of
    this very adapter say now, and no time of day: the same records give the same bytes.

    Args:
        folder: An exported model with its record.
        shown_as: The name in the title; while `folder` has a temporary one.

    Returns:
        What became of the card; ``edited``: somebody's own, left as it is.
    """
    file, text = folder / CARD, _sealed(_text(folder, shown_as))
    if file.is_file():
        if file.read_bytes() == text.encode():
            return "current"
        if _is_edited(file):
            return "edited"
    with atomic_file(file) as out:
        out.write(text.encode())
    return "written"


def keep_edited(folder: Path, successor: Path) -> str | None:
    """Copies an edited card of `folder` beside the new one of the folder that replaces it.

    Returns:
        The copy's name; None where there is no card that somebody has edited.
    """
    file = folder / CARD
    if not file.is_file() or not _is_edited(file):
        return None
    shutil.copyfile(file, successor / EDITED)
    return EDITED


def comparison(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the last report of compare on the very adapter or merged model of `record`.

    A report counts where its inputs have the fingerprint of the base and that of the adapter's
    weights, or of the merged model; a report on an adapter that was trained before or after in the
    same folder does not.
    """
    adapter = {digest for name, digest in record["inputs"].items() if name.endswith(".safetensors")}
    base = set(record["inputs"].values())
    tuned = adapter | {record["fingerprint"]}
    found = []
    for file in sorted(resolve("outputs/compare").glob("*/report.json")):
        report = provenance.read(file) or {}
        digests = {d for d in report.get("inputs", {}).values() if isinstance(d, str)}
        if report.get("step") == "compare" and tuned & digests and (base - adapter) & digests:
            found.append(report | {"file": f"outputs/compare/{file.parent.name}/report.json"})
    return max(found, key=lambda report: str(report.get("finished")), default=None)


def metadata(record: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    """Returns the metadata header."""
    sets = _data(_run(record))
    hubs = sorted({hub for one in sets for hub in one["header"].get("source_datasets", [])})
    return {
        "language": ["zh"],
        **({"license": "apache-2.0"} if origin.tiny else LICENCE),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": origin.repository} if origin.repository else {}),
        **({"base_model_relation": "finetune"} if origin.repository else {}),
        **({"datasets": hubs} if hubs else {}),
        "tags": ["medical", "question-answering", "glm", "chatglm3", "lora", "medqa"],
    }


def _text(folder: Path, name: str) -> str:
    import yaml
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medqa.export", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"n": lambda value: f"{value:,}", "cell": _cell}
    record = provenance.read(folder / RECORD) or {}
    origin, run = _origin(resolve(record["base"])), _run(record)
    recipe = {k: v for k, v in run.get("config", {}).items() if k not in _PLACES and not _path(v)}
    return environment.get_template("card.md.j2").render(
        name=name,
        header=yaml.safe_dump(metadata(record, origin), allow_unicode=True, sort_keys=False),
        record=record,
        origin=origin,
        base=record["inputs"][record["base"]],
        adapter=next(d for n, d in record["inputs"].items() if n.endswith(".safetensors")),
        run=run,
        recipe=yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False),
        data=_data(run),
        report=comparison(record),
        licence=LICENCE["license_link"],
        question=QUESTION,
    )


def _is_edited(card: Path) -> bool:
    present = card.read_text(encoding="utf-8", errors="replace")
    return present != _sealed(present.rpartition(_SEAL)[0])


def _sealed(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text}{_SEAL}To have it written anew, remove it and export again. {digest} -->\n"


def _origin(base: Path) -> Origin:
    imported = provenance.read(base / "medqa_import.json") or {}
    source = resolve(imported.get("origin") or base)
    download = provenance.read(source / "medqa_download.json") or {}
    return Origin(
        tiny=(source / "medqa_tiny.json").is_file(),
        hub=download.get("hub"),
        repository=download.get("repository"),
    )


def _run(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record of the training; empty for an adapter that was trained without us."""
    return provenance.read(resolve(record["adapter"]) / "medqa_run.json") or {}


def _data(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what is known of each data set that was trained on.

    Its manifest and card are quoted where the file that was trained on is still the one beside
    them.
    """
    root = processed("")
    files: dict[str, dict[str, str]] = {}
    for name, digest in run.get("inputs", {}).items():
        path = resolve(name)
        if path.suffix and path.is_relative_to(root):
            files.setdefault(path.parent.name, {})[path.name] = digest
    sets = []
    for name, read in files.items():
        same = all((f := processed(name) / n).is_file() and sha256(f) == d for n, d in read.items())
        manifest = provenance.read(processed(name) / "manifest.json") if same else None
        sets.append(
            {
                "name": name,
                "read": read,
                "manifest": manifest,
                "parts": [p for p in _SPLITS if manifest and p in manifest["counts"]],
                "header": _header(processed(name) / CARD) if manifest else {},
            }
        )
    return sets


def _header(card: Path) -> dict[str, Any]:
    """Returns the metadata of a card; empty where it has none that can be read."""
    import yaml

    try:
        _, header, _ = card.read_text(encoding="utf-8").split("---\n", 2)
        found = yaml.safe_load(header)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _path(value: object) -> bool:
    """Says whether `value` leads somewhere on this machine."""
    return isinstance(value, str) and (
        Path(value).is_absolute() or str(project_root()) in value or value.startswith("~")
    )


def _cell(text: object) -> str:
    """Returns `text` for a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", r"\|")
