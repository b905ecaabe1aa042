"""The data set card: ``README.md`` with the hub's metadata, so that a result can be shared as is.

The metadata's keys are those of https://huggingface.co/docs/hub/datasets-cards.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa.data.kinds import OPENING_CHARS
from medqa.data.report import LEAKAGE, WORDS
from medqa.data.rows import Kind
from medqa.files import atomic_file

if TYPE_CHECKING:
    from medqa.data.recipe import Recipe
    from medqa.data.sources import Source

CARD = "README.md"
SPLITS = {"train": "train", "val": "validation", "test": "test"}  # ours, the hub's
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
LARGEST_SIZE = "1M<n<10M"  # the next class begins where no source of ours reaches

TASKS: Mapping[Kind, list[str]] = {
    "pairs": ["question-answering", "text-generation"],
    "preference": ["question-answering", "text-generation"],
    "text": ["text-generation"],
}
TAGS: Mapping[Kind, list[str]] = {
    "pairs": ["question-answering"],
    "preference": ["question-answering", "dpo"],
    "text": ["pretraining"],
}

# Licences that the sources' own cards state (data/README.md); a YAML does not say any, and what is
# not known here is not claimed.
HUATUO = "FreedomIntelligence/"
LICENCES = {
    "Huatuo26M-Lite": "apache-2.0",
    "huatuo_encyclopedia_qa": "apache-2.0",
    "huatuo_knowledge_graph_qa": "apache-2.0",
    "huatuo_consultation_qa": "apache-2.0",
    "huatuo26M-testdatasets": "apache-2.0",
}
SAMPLE = "data/sample"  # of this project, under its licence


def write(folder: Path, *, recipe: "Recipe", manifest: Mapping[str, Any]) -> None:
    """Writes ``README.md``.

    Args:
        folder: The data set's.
        recipe: The data YAML.
        manifest: The record of the conversion; its ``counts``, ``sources``, ``rules``, ``leakage``,
            ``inputs``, ``versions`` and ``notes`` are told, and no time of day: the same inputs
            give the same bytes.
    """
    import yaml
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medqa.data", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"n": lambda value: f"{value:,}", "cell": _cell}
    parts = [part for part in SPLITS if part in manifest["counts"]]
    rules = recipe.rules.model_dump()
    done = manifest["rules"]
    text = environment.get_template("card.md.j2").render(
        header=yaml.safe_dump(metadata(recipe, manifest), allow_unicode=True, sort_keys=False),
        recipe=recipe,
        say=WORDS[recipe.kind],
        opening_chars=OPENING_CHARS,
        manifest=manifest,
        parts=parts,
        licences={source.source: licence(source) for source in recipe.all_sources},
        changed={name: done[name] for name, on in rules.items() if on and done.get(name)},
        off=[name for name, on in rules.items() if not on],
        masked={k.partition(":")[2]: n for k, n in done.items() if k.startswith("privacy:") and n},
        leakage=_leakage(manifest["leakage"]),
        yaml=yaml.safe_dump(
            recipe.model_dump(exclude_defaults=True), allow_unicode=True, sort_keys=False
        ),
    )
    with atomic_file(folder / CARD) as out:
        out.write(text.encode())


def metadata(recipe: "Recipe", manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata header; a split without rows has no entry, the loader fails on it."""
    counts = manifest["counts"]
    rows = sum(counts.get(part, 0) for part in SPLITS)
    found = {licence(source) for source in recipe.all_sources}
    known = len(found) == 1 and None not in found
    medical = any(_name(source) or _is_sample(source) for source in recipe.all_sources)
    hubs = sorted(filter(None, {_hub(source) for source in recipe.all_sources}))
    return {
        "pretty_name": recipe.name,
        "language": ["zh"],
        **({"license": found.pop()} if known else {"license": "other", "license_name": "unknown"}),
        "task_categories": TASKS[recipe.kind],
        "size_categories": [next((s for top, s in SIZES if rows < top), LARGEST_SIZE)],
        **({"source_datasets": hubs} if hubs else {}),
        "tags": [*(["medical"] if medical else []), *TAGS[recipe.kind], "medqa"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": hub, "path": f"{part}.{recipe.output}"}
                    for part, hub in SPLITS.items()
                    if counts.get(part)
                ],
            }
        ],
    }


def licence(source: "Source") -> str | None:
    """Returns the licence that a source's own card states, None where we know of none."""
    if _is_sample(source):
        return "apache-2.0"
    return LICENCES.get(_name(source) or "")


def _is_sample(source: "Source") -> bool:
    return Path(source.path).is_relative_to(SAMPLE)


def _hub(source: "Source") -> str | None:
    name = _name(source)
    return source.hub or (f"{HUATUO}{name}" if name else None)


def _name(source: "Source") -> str | None:
    """Returns which set of Huatuo-26M a source is, by its hub or by the folder it lies in."""
    if source.hub:
        owner, _, name = source.hub.rpartition("/")
        return name if f"{owner}/" == HUATUO and name in LICENCES else None
    parts = Path(source.path).parts
    inside = parts[:2] == ("data", "raw")
    return next((part for part in parts if inside and part in LICENCES), None)


def _leakage(leakage: Mapping[str, Mapping[str, float]]) -> list[tuple[str, float, float]]:
    random, ours = leakage.get("random", {}), leakage.get("ours", {})
    return [
        (f"{en} / {zh}", random[key], ours[key])
        for key, (zh, en) in LEAKAGE.items()
        if key in random and key in ours
    ]


def _cell(text: object) -> str:
    """Returns `text` for a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", r"\|")
