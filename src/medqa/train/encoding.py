"""Some rows encoded by LLaMA-Factory's own parser, template and processors, as training would.

    python -m medqa.train.encoding < request.json > answer.json

Run as a process of its own: the import takes seconds, LLaMA-Factory sets seeds and loggers, and the
look at the GPU opens a CUDA context that a training's parent process must not hold.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.train import card
from medqa.train.inquiry import Answer, Part, Request

Chat = tuple[str, str]
"""The system's words, often none, and the first question."""

_AS_TOKENS, _AS_TEXT = {"split_special_tokens": False}, {"split_special_tokens": True}
_IGNORED = -100  # llamafactory/extras/constants.py, IGNORE_INDEX
_COMPARED = 3  # rows whose prompt is compared with the model's own chat template
_NO_LIMIT = 1 << 30
# The card's own checks look at these (`medqa.train.card`); here the parser reads the rest as for a
# CPU, since it would end at the first of them, in other words and without a cure.
_CPU: Mapping[str, Any] = {"use_cpu": True, "bf16": False, "fp16": False, "pure_bf16": False}
_DEVICES = ("tf32", "deepspeed", "fsdp", "fsdp_config", "bf16_full_eval", "fp16_full_eval")


def examine(request: Request) -> Answer:
    """Encodes the rows of `request` in this process, which imports LLaMA-Factory."""
    answer = Answer(card=card.probe())
    try:
        from llamafactory.hparams import get_train_args

        model_args, data_args, _, tuning_args, _ = get_train_args(_for_cpu(request.values))
    except Exception as error:  # its parser and transformers raise many kinds
        answer.refused = " ".join(str(error).split())
        return answer
    if not any(request.rows.values()):
        return answer
    try:
        _encode(request, answer, model_args, data_args, tuning_args.stage)
    except Exception as error:  # templates and tokenizers raise many kinds
        answer.refused = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return answer


def _for_cpu(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe for a CPU and for a folder that is not there yet."""
    kept = {key: value for key, value in values.items() if key not in _DEVICES}
    nowhere = str(Path(values["output_dir"]) / ".preflight")
    return {**kept, **_CPU, "output_dir": nowhere, "report_to": "none"}


def _encode(request: Request, answer: Answer, model_args: Any, data_args: Any, stage: str) -> None:
    from llamafactory.data.template import TEMPLATES, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer

    tokenizer = load_tokenizer(model_args)["tokenizer"]
    examples = [example for found in _aligned(request, data_args) for example in found]
    chats = _chats(tokenizer, examples) if tokenizer.chat_template and stage != "pt" else []
    own = [_own(tokenizer, *chat) for chat in chats]  # before the library changes the tokenizer
    if data_args.template not in TEMPLATES:
        answer.template, answer.better = "unknown", _same(tokenizer, chats, own)
        return
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    if chats:
        same = _prompts(template, tokenizer, chats) == own
        answer.template = "same" if same else "other"
        answer.better = "" if same else _same(tokenizer, chats, own)
    stops = _stops(Path(model_args.model_name_or_path))
    answer.stops = [tokenizer.convert_ids_to_tokens(stop) for stop in stops]
    coded = _Coder(stage, template, tokenizer, data_args)
    sequences = coded.rows(examples)
    answer.encoded = len(sequences)
    for row in coded.uncut(examples, sequences):
        if any(not _ends(labels, stops, tokenizer) for _, labels in row):
            answer.endless += 1
    first = [label for label in sequences[0][0][1] if label != _IGNORED]
    answer.end = tokenizer.convert_ids_to_tokens(first[-1]) if first else ""
    if stage == "sft" and data_args.packing:
        answer.repacked = coded.unpacked(examples) == sorted(row[0] for row in sequences)
    places = sorted({0, len(sequences) // 2, len(sequences) - 1})[: request.shown]
    answer.decoded = [[_parts(s, tokenizer) for s in sequences[place]] for place in places]


def _aligned(request: Request, data_args: Any) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of each data set in LLaMA-Factory's standard form."""
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import get_dataset_list

    for name, rows in request.rows.items():
        (attributes,) = get_dataset_list([name], data_args.dataset_dir)
        convert = get_dataset_converter(attributes.formatting, attributes, data_args)
        named = [c for c in vars(attributes).values() if isinstance(c, str)]
        # A row that lacks a key has None there once `datasets` has read the file.
        yield [convert({**dict.fromkeys(named), **row}) for row in rows]


Sequence_ = tuple[list[int], list[int]]  # token ids and labels


class _Coder:
    """LLaMA-Factory's processors for one stage."""

    def __init__(self, stage: str, template: Any, tokenizer: Any, data_args: Any) -> None:
        self._stage = {"dpo": "rm"}.get(stage, stage)
        self._parts = (template, tokenizer, data_args)

    def rows(self, examples: Sequence[Mapping[str, Any]]) -> list[list[Sequence_]]:
        """Returns every row as it is trained without packing: one sequence, or two."""
        return self._split(self._run(examples, packing=False))

    def uncut(
        self, examples: Sequence[Mapping[str, Any]], cut: Sequence[list[Sequence_]]
    ) -> list[list[Sequence_]]:
        """Returns those rows of `cut` that `cutoff_len` has left whole.

        Of text for continued pretraining all of them, since a packed stream is cut anywhere.
        """
        whole = self._split(self._run(examples, packing=False, cutoff_len=_NO_LIMIT))
        if self._stage == "pt":
            return whole
        return [row for row, full in zip(cut, whole, strict=True) if row == full]

    def unpacked(self, examples: Sequence[Mapping[str, Any]]) -> list[Sequence_]:
        """Returns the rows that packing has put together, sorted."""
        found = []
        packs = self._run(examples, packing=True)
        for ids, labels, places in zip(
            packs["input_ids"], packs["labels"], packs["position_ids"], strict=True
        ):
            starts = [at for at, place in enumerate(places) if place == 0] + [len(ids)]
            for start, end in pairwise(starts):
                if any(label != _IGNORED for label in labels[start:end]):  # else padding
                    found.append((ids[start:end], labels[start:end]))
        return sorted(found)

    def _run(self, examples: Sequence[Mapping[str, Any]], **changed: Any) -> dict[str, list[Any]]:
        from copy import copy

        from llamafactory.data import processor

        template, tokenizer, data_args = self._parts
        arguments = copy(data_args)
        for key, value in changed.items():
            setattr(arguments, key, value)
        kinds = {
            "sft": "PackedSupervised" if arguments.packing else "Supervised",
            "pt": "Pretrain",
            "rm": "Pairwise",
            "kto": "Feedback",
        }
        kind = getattr(processor, f"{kinds.get(self._stage, 'Unsupervised')}DatasetProcessor")
        made = kind(template=template, tokenizer=tokenizer, processor=None, data_args=arguments)
        batch = {key: [example[key] for example in examples] for key in examples[0]}
        return dict(made.preprocess_dataset(batch))

    def _split(self, made: Mapping[str, list[Any]]) -> list[list[Sequence_]]:
        if self._stage == "pt":  # every token is trained
            return [[(list(ids), list(ids))] for ids in made["input_ids"]]
        sides = ("chosen_", "rejected_") if self._stage == "rm" else ("",)
        columns = [
            list(zip(made[f"{side}input_ids"], made[f"{side}labels"], strict=True))
            for side in sides
        ]
        return [list(row) for row in zip(*columns, strict=True)]


def _chats(tokenizer: Any, examples: Sequence[Mapping[str, Any]]) -> list[Chat]:
    """Returns some first questions by which templates are compared."""
    chats = []
    for example in examples:
        asked = example["_prompt"][0]["content"]
        # The name of a control token would be text to the one template and the token to the other.
        if tokenizer.encode(asked, **_AS_TOKENS) == tokenizer.encode(asked, **_AS_TEXT):
            chats.append((example["_system"] or "", asked))
        if len(chats) == _COMPARED:
            break
    return chats


def _own(tokenizer: Any, system: str, asked: str) -> list[int]:
    """Encodes a question by the tokenizer's own chat template."""
    before = [{"role": "system", "content": system}] if system else []
    ids: list[int] = tokenizer.apply_chat_template(
        [*before, {"role": "user", "content": asked}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        tokenizer_kwargs=_AS_TOKENS,
    )
    return ids


def _same(tokenizer: Any, chats: Sequence[Chat], own: Sequence[list[int]]) -> str:
    """Returns the template of LLaMA-Factory's that asks as the tokenizer's own; none is empty."""
    from llamafactory.data.template import TEMPLATES

    for name, template in TEMPLATES.items():
        with contextlib.suppress(Exception):  # some need tokens that this tokenizer lacks
            if own and _prompts(template, tokenizer, chats) == own:
                return str(name)
    return ""


def _prompts(template: Any, tokenizer: Any, chats: Sequence[Chat]) -> list[list[int]]:
    """Encodes questions by a template of LLaMA-Factory's."""
    return [
        template.encode_oneturn(
            tokenizer,
            [{"role": "user", "content": asked}, {"role": "assistant", "content": "a"}],
            system or None,
        )[0]
        for system, asked in chats
    ]


def _stops(folder: Path) -> list[int]:
    """Returns the ids at which the model in `folder` ends an answer."""
    for name in ("generation_config.json", "config.json"):
        found = (provenance.read(folder / name) or {}).get("eos_token_id")
        if found is not None:
            return found if isinstance(found, list) else [found]
    return []


def _ends(labels: Sequence[int], stops: Sequence[int], tokenizer: Any) -> bool:
    """Says whether the last trained token is a stop, blanks after it left out."""
    trained = [label for label in labels if label != _IGNORED]
    while trained and trained[-1] not in stops:
        if tokenizer.decode([trained.pop()]).strip():
            return False
    return bool(trained)


def _parts(sequence: Sequence_, tokenizer: Any) -> list[Part]:
    """Decodes a row, cut where training begins or ends."""
    runs: list[tuple[bool, list[int]]] = []
    for number, label in zip(*sequence, strict=True):
        trained = label != _IGNORED
        if not runs or runs[-1][0] != trained:
            runs.append((trained, []))
        runs[-1][1].append(number)
    return [(trained, tokenizer.decode(ids, skip_special_tokens=False)) for trained, ids in runs]


def main() -> None:
    """Reads a request from the standard input and writes its answer to the standard output."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # LLaMA-Factory prints, too
        answer = examine(Request(**json.load(sys.stdin)))
        json.dump(asdict(answer), out)


if __name__ == "__main__":
    main()
