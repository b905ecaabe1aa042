"""Merging an adapter into its base with LLaMA-Factory's own export, and checking the result.

Before the result gets its name it is proved that the base is the one that was imported and on which
the adapter was trained, that every weight is base + adapter (`weights`), and that logits and greedy
answers are those of base and adapter (`parity`). One copy of the model is in memory at a time.
"""

import gc
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from medqa import provenance
from medqa.environment import defaults
from medqa.errors import CheckFailedError, CheckpointError, StepError
from medqa.export import card
from medqa.export.derived import take_texts
from medqa.export.job import Job, read, require_adapter, require_base
from medqa.export.modelfile import modelfile
from medqa.export.record import RECORD as RECORD
from medqa.export.record import digests, verify
from medqa.files import atomic_folder, require_empty
from medqa.paths import resolve, shown

LICENCE_FILE = "MODEL_LICENSE"


def export(config: str | Path, overrides: Sequence[str], *, overwrite: bool = False) -> Path:
    """Merges the adapter that an export YAML names and checks that it answers as before.

    Args:
        config: A complete export YAML of LLaMA-Factory.
        overrides: ``key=value``, as its own command line takes them.
        overwrite: Replace a result made from other inputs.

    Returns:
        The folder of the merged model: safetensors, the base's tokenizer, chat template and
        generation settings, Modelfile, model card, and the record. What is up to date is looked
        through byte by byte and not merged again; its card gets the figures of a new comparison.

    Raises:
        ConfigError: Everything that is wrong with the YAML.
        MissingInputError: Base or adapter are not there or not finished.
        CheckpointError: The adapter was not trained on this base, or cannot be merged into any; the
            base is not what was imported, or the result no longer what was checked.
        TargetError: The target holds something made from other inputs.
        CheckFailedError: The merged model is not base + adapter, or does not answer as they do.
    """
    job = read(config, overrides)
    require_base(job.base)
    require_adapter(job)
    inputs = provenance.model_digest(job.base) | provenance.digest(
        job.adapter / "adapter_config.json", job.adapter / "adapter_model.safetensors"
    )
    if _is_current(job, inputs, overwrite=overwrite):
        sys.stdout.write(f"up to date: {shown(job.target)}\n")
        _renew_card(job.target)
        return job.target
    if not overwrite:
        require_empty(job.target)  # before the seconds that LLaMA-Factory takes to load
    _say(f"merging {shown(job.adapter)} into {shown(job.base)}")
    with atomic_folder(job.target, overwrite=overwrite) as staging:
        _require_imported(job.base)
        _merge(job, staging)
        _finish(job, staging)
        _record(job, staging, inputs)
        card.renew(staging, shown_as=job.target.name)
        if kept := card.keep_edited(job.target, staging):
            _say(f"{shown(job.target)}: the card that was edited by hand is now {kept}")
    _say(f"{shown(job.target)}: merged model, checked")
    return job.target


def _is_current(job: Job, inputs: Mapping[str, str], *, overwrite: bool) -> bool:
    """Says whether the target is made of `inputs` and still whole; without `overwrite` it must be.

    Raises:
        CheckpointError: It was changed after it was checked, and may not be replaced.
    """
    record = job.target / RECORD
    if not provenance.is_current(record, step="export", inputs=inputs, config=job.values):
        return False
    try:
        verify(job.target)
    except CheckpointError:
        if not overwrite:
            raise
        return False
    return True


def _renew_card(folder: Path) -> None:
    state = card.renew(folder, shown_as=folder.name)
    if state == "written":
        _say(f"{shown(folder / card.CARD)}: written anew")
    elif state == "edited":
        _say(f"{shown(folder / card.CARD)}: edited by hand, left as it is")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _require_imported(base: Path) -> None:
    """Refuses a base whose weights are no longer those of its record: adapters know it by that."""
    from medqa.model.fingerprint import weights_fingerprint

    ((name, recorded),) = provenance.model_digest(base).items()
    if recorded.startswith("sha256:") and weights_fingerprint(base) != recorded:
        raise CheckpointError(
            f"the weights of {name} are not those of its record ({recorded[:16]}): they were "
            "changed or damaged; import it again (make model, scripts/import_model.py)"
        )


def _merge(job: Job, staging: Path) -> None:
    """Runs LLaMA-Factory's export into `staging`, with its warnings and without its chatter."""
    with defaults(LLAMAFACTORY_VERBOSITY="WARNING", TRANSFORMERS_VERBOSITY="error"):
        _export_model(job, staging)
    gc.collect()  # the model is part of a circle, and the next one would come beside it


def _export_model(job: Job, staging: Path) -> None:
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
    take_texts(job.base, staging)
    config = json.loads((staging / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config or list(staging.glob("*.py")):
        raise CheckFailedError("the merged model carries code of its own; nothing was written")
    if not list(staging.glob("*.safetensors")):
        raise CheckFailedError("LLaMA-Factory wrote no safetensors; nothing was written")
    imported = provenance.read(job.base / "medqa_import.json") or {}
    licence = resolve(imported.get("origin") or job.base) / LICENCE_FILE
    if licence.is_file():  # ChatGLM3's, which goes where its weights go
        shutil.copyfile(licence, staging / LICENCE_FILE)
    text = modelfile(context=int(config["max_position_embeddings"]))
    (staging / "Modelfile").write_text(text, encoding="utf-8")


def _record(job: Job, staging: Path, inputs: Mapping[str, str]) -> None:
    from medqa.export import parity, weights
    from medqa.model.fingerprint import weights_fingerprint

    compared = weights.check(job.base, job.adapter, staging)
    _say(f"weights: {compared}")
    result = parity.check(job.base, job.adapter, staging, job.device)
    _say(f"parity: {result.logits}")
    _say(f"answers: {result.answers}")
    written = sorted(f for f in staging.iterdir() if f.is_file())
    provenance.write(
        staging / RECORD,
        step="export",
        inputs=inputs,
        config=job.values,
        outputs=written,
        digests=digests(staging, (f.name for f in written)),
        base=shown(job.base),
        adapter=shown(job.adapter),
        fingerprint=weights_fingerprint(staging),
        weights=compared.record,
        **result.record,
    )
