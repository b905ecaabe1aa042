"""LLaMA-Factory's own way from a data set to the batches that its trainer gets."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

QUESTION_ANSWER = {"prompt": "instruction", "query": "input", "response": "output"}


def write_rows(
    project: Path, rows: Iterable[Mapping[str, Any]], name: str = "qa", **entry: Any
) -> None:
    """Writes `rows` and enters them in the registry of `project` under `name`."""
    folder = project / "data"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    registry = folder / "dataset_info.json"
    entries = json.loads(registry.read_text("utf-8")) if registry.exists() else {}
    entries[name] = {"file_name": f"{name}.jsonl", "columns": QUESTION_ANSWER, **entry}
    registry.write_text(json.dumps(entries), encoding="utf-8")


@dataclass(frozen=True)
class Encoded:
    """A data set as LLaMA-Factory tokenised it, and what its collator is made of."""

    rows: Any
    arguments: Any
    tokenizer: Any
    template: Any

    def batch(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns what the collator of ``train/sft/workflow.py`` makes of some rows."""
        import torch
        from llamafactory.data import SFTDataCollatorWith4DAttentionMask

        collator = SFTDataCollatorWith4DAttentionMask(
            template=self.template,
            tokenizer=self.tokenizer,
            pad_to_multiple_of=8,
            block_diag_attn=self.arguments.neat_packing,
            neat_packing=self.arguments.neat_packing,
            attn_implementation="sdpa",
            compute_dtype=torch.float32,
        )
        return dict(collator([dict(feature) for feature in features]))


def encode(project: Path, monkeypatch: pytest.MonkeyPatch, values: Mapping[str, Any]) -> Encoded:
    """Encodes the training rows of a recipe with LLaMA-Factory; paths start at `project`."""
    from datasets.arrow_writer import OptimizedTypedSequence
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    # What it changes for good: this method when it packs (data/loader.py), and its templates; and
    # with several processes datasets puts a copy in the place of os.environ (Dataset.map), in which
    # all would stay that a test has set.
    monkeypatch.setattr(os, "environ", os.environ)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setattr(OptimizedTypedSequence, "__init__", OptimizedTypedSequence.__init__)
    monkeypatch.setattr(TEMPLATES["chatglm3"], "default_system", "")
    monkeypatch.chdir(project)
    fixed = {
        "do_train": True,
        "finetuning_type": "lora",
        "output_dir": "saves/encoded",
        "cache_dir": "cache",
        "report_to": "none",
        "use_cpu": True,
    }
    model, data, training, finetuning, _ = get_train_args(fixed | dict(values))
    module = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data)
    stage = {"dpo": "rm"}.get(finetuning.stage, finetuning.stage)
    sets = get_dataset(template, model, data, training, stage=stage, **module)
    return Encoded(sets["train_dataset"], data, module["tokenizer"], template)
