"""What is made of an exported model and where it goes: the steps after ``make export``.

Each is one key of the YAML, and each asks first whether the exported folder still is what was
checked when it was made.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from medqa import provenance
from medqa.config import Strict, load
from medqa.errors import CheckpointError
from medqa.export import gguf, quantize
from medqa.export.gguf import Kind
from medqa.export.record import verify
from medqa.files import sha256
from medqa.paths import resolve, shown

CARD = "README.md"

Hub = Literal["huggingface", "modelscope"]

ALLOWED = re.compile(
    r"""(?x)
    (config | generation_config | tokenizer | tokenizer_config | special_tokens_map | added_tokens
      | model\.safetensors\.index | medqa_export | medqa_quantize | medqa_gguf) \.json
    | model (-\d{5}-of-\d{5})? \.safetensors | [\w.-]+ \.gguf
    | tokenizer\.model | chat_template\.jinja | Modelfile
    | (README | MODEL_LICENSE | LICENSE | NOTICE) (_\w+)? (\.md | \.txt)?
    """
)
"""The names that a repository may be sent: no code, no pickle, no rows that were trained on."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

Upload = Callable[[Path, Sequence[str], str, Hub, bool], None]
"""Sends the named files of a folder to ``owner/name`` on a hub, private or not."""


class Publish(Strict):
    """The schema of publish.yaml."""

    model: str = Field(min_length=1)
    quantize: Literal[4, 8] | None = None
    gguf: Kind | None = None
    hub: Hub | None = None
    repo: str | None = None
    private: bool = True

    @field_validator("repo")
    @classmethod
    def _owned(cls, repo: str | None) -> str | None:
        if repo is not None and not _REPOSITORY.fullmatch(repo):
            raise PydanticCustomError("repo", "expected owner/name in letters, digits and -_.")
        return repo

    @model_validator(mode="after")
    def _go_together(self) -> "Publish":
        if (self.hub is None) != (self.repo is None):
            raise PydanticCustomError("apart", "hub and repo: expected both or none of them")
        return self


@dataclass(frozen=True)
class Part:
    """A folder that is made of the exported one, and what is added to the name of both."""

    folder: Path
    suffix: str
    make: Callable[[], object]


def publish(
    config: str | Path,
    overrides: Sequence[str],
    upload: Upload,
    *,
    dry_run: bool = False,
    overwrite: bool = False,
) -> None:
    """Does what a publish.yaml asks for.

    Args:
        config: The YAML.
        overrides: ``key=value``.
        upload: What sends a folder to a hub.
        dry_run: Make and send nothing, and list what would be sent.
        overwrite: Replace what was made from other inputs.

    Raises:
        ConfigError: Everything that is wrong with the YAML.
        MissingInputError: There is no exported model.
        CheckpointError: The folder is not as it was checked, or holds what must not be sent.
        TargetError: A folder to write, or the repository, holds something else.
        CheckFailedError: What was made does not answer as the model does.
        StepError: The hub refused.
    """
    plan = load(config, overrides, Publish)
    source = resolve(plan.model)
    fingerprint = require_exported(source)
    parts = list(_parts(plan, source, overwrite=overwrite))
    if not parts and plan.hub is None:
        sys.stdout.write(f"{shown(source)}: as exported; set quantize, gguf or hub for more\n")
    if not dry_run:
        for part in parts:
            part.make()
    if plan.hub is None or plan.repo is None:
        return
    sending = [(source, plan.repo)]
    for part in parts:
        if part.folder.is_dir():
            _require_made_of(part.folder, fingerprint)
            sending.append((part.folder, f"{plan.repo}-{part.suffix}"))
        elif dry_run:
            sys.stdout.write(f"{shown(part.folder)}: not made yet; would be made, then sent\n")
    named = [(folder, sendable(folder), repository) for folder, repository in sending]
    for folder, names, repository in named:
        if dry_run:
            _list(folder, names, f"{plan.hub} {repository}", private=plan.private)
        else:
            upload(folder, names, repository, plan.hub, plan.private)


def require_exported(folder: Path) -> str:
    """Returns the fingerprint of an exported model, which must be as it was when it was checked.

    Raises:
        MissingInputError: `folder` is not there or was not made by the export.
        CheckpointError: Parity did not hold, or a file is not the one of then.
    """
    record = verify(folder)
    parity: Mapping[str, Any] = record.get("parity") or {}
    # NaN where a number is missing: no comparison with it is true.
    difference, tolerance = (float(parity.get(k) or "nan") for k in ("difference", "tolerance"))
    if not (parity.get("difference") == 0 or difference <= tolerance):
        raise CheckpointError(
            f"the record of {shown(folder)} does not say that the model answers as base and "
            "adapter did; run: make export OVERWRITE=1"
        )
    return str(record["fingerprint"])


def sendable(folder: Path) -> list[str]:
    """Returns the names of all files in `folder`, each of which may be sent.

    Raises:
        CheckpointError: One may not, or there is no model card.
    """
    names = sorted(path.name for path in folder.iterdir())
    refused = [n for n in names if not ALLOWED.fullmatch(n) or not _plain(folder / n)]
    if refused:
        raise CheckpointError(
            f"{shown(folder)} holds {', '.join(refused)}, which is no part of an exported model "
            "and is not sent; move it away, then run this again"
        )
    if CARD not in names:
        raise CheckpointError(
            f"{shown(folder)} has no model card ({CARD}): nobody could tell what the model is for "
            "and what not; run: make export OVERWRITE=1"
        )
    return names


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _parts(plan: Publish, source: Path, *, overwrite: bool) -> Iterator[Part]:
    if plan.quantize:
        bits, suffix = plan.quantize, f"{plan.quantize}bit"
        folder = source.with_name(f"{source.name}-{suffix}")
        yield Part(
            folder, suffix, lambda: quantize.quantize(source, folder, bits, overwrite=overwrite)
        )
    if plan.gguf:
        kind, suffix = plan.gguf, f"gguf-{plan.gguf}"
        target = source.with_name(f"{source.name}-{suffix}")
        yield Part(target, suffix, lambda: gguf.convert(source, target, kind, overwrite=overwrite))


def _require_made_of(folder: Path, fingerprint: str) -> None:
    """Refuses a folder that was made of another model, or changed since."""
    records = [provenance.read(folder / name) for name in (quantize.RECORD, gguf.RECORD)]
    record = next((r for r in records if r), {})
    if fingerprint not in record.get("inputs", {}).values():
        raise CheckpointError(
            f"{shown(folder)} was not made of this model; run the command again without --dry-run, "
            "with --overwrite"
        )
    hashes = record.get("sha256", {})
    changed = [n for n, h in hashes.items() if not _plain(folder / n) or sha256(folder / n) != h]
    if changed or not hashes:
        raise CheckpointError(
            f"{shown(folder)} was changed after it was made ({', '.join(changed)}); run the "
            "command again with --overwrite"
        )


def _list(folder: Path, names: Sequence[str], where: str, *, private: bool) -> None:
    sizes = [(folder / name).stat().st_size for name in names]
    seen = "private" if private else "public"
    sys.stdout.write(f"would send to {where} ({seen}), {sum(sizes):,} bytes:\n")
    for name, size in zip(names, sizes, strict=True):
        sys.stdout.write(f"  {size:>14,}  {shown(folder / name)}\n")
