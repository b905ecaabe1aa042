"""Values of a recipe that cannot be, that contradict one another, or that harm."""

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from medqa.paths import resolve, shown
from medqa.train.findings import Findings

CUTOFF_LEN = 2048
"""LLaMA-Factory's default (``hparams/data_args.py``)."""

REQUIRED = ("model_name_or_path", "dataset", "template", "stage", "output_dir")

_COUNTS = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "cutoff_len",
)

Problem = tuple[str, str]  # what was seen, and its cure


def look(values: Mapping[str, Any], found: Findings) -> None:
    """Looks at what needs neither model nor data."""
    problems = [
        *_required(values),
        *_switches(values),
        *_formats(values),
        *_packing(values),
        *_checkpoints(values),
        *_packages(values),
    ]
    for seen, cure in problems:
        found.problem("settings", seen, cure)
    if not problems:
        parts = [values["stage"], values.get("finetuning_type", "lora"), values["template"]]
        found.ok("settings", f"{', '.join(map(str, parts))}, {cutoff(values):,} tokens a row")


def cutoff(values: Mapping[str, Any]) -> int:
    """Returns the tokens at which a row is cut."""
    return int(values.get("cutoff_len") or CUTOFF_LEN)


def names(given: object) -> list[str]:
    """Returns a YAML list, or a text with commas, as names."""
    parts = given.split(",") if isinstance(given, str) else given or []
    stripped = [str(name).strip() for name in parts] if isinstance(parts, list) else []
    return [name for name in stripped if name]


def is_packed(values: Mapping[str, Any]) -> bool:
    """Says whether rows are packed: on request, and in continued pretraining unless refused."""
    stage, asked = values.get("stage", "sft"), values.get("packing")
    if stage == "sft":
        return bool(asked or values.get("neat_packing"))
    return stage == "pt" and asked is not False


def has_required(values: Mapping[str, Any]) -> bool:
    """Says whether the keys without which nothing can be trained are there, and of their kind."""
    return not any(_required(values))


def _required(values: Mapping[str, Any]) -> Iterator[Problem]:
    for key in REQUIRED:
        given = values.get(key)
        if not given:
            yield f"missing key {key!r}", f"{key}=..."
        elif not (isinstance(given, str) or (key == "dataset" and isinstance(given, list))):
            yield f"{key}: expected a text, found {given!r}", f"{key}=..."


def _switches(values: Mapping[str, Any]) -> Iterator[Problem]:
    for key in _COUNTS:
        if values.get(key, 1) < 1:
            yield f"{key}: expected 1 or more, found {values[key]}", f"{key}=1"
    if not values.get("do_train"):
        yield "do_train is not set: LLaMA-Factory would train nothing", "do_train=true"
    if values.get("trust_remote_code"):
        yield "no code of a checkpoint is ever run", "trust_remote_code=false"
    if values.get("pissa_init") and values.get("pissa_iter", 16) != -1:
        yield (
            "PiSSA by an approximation begins elsewhere each time it is loaded, so the adapter "
            "would answer otherwise than it was trained",
            "pissa_iter=-1",
        )


def _formats(values: Mapping[str, Any]) -> Iterator[Problem]:
    if values.get("fp16") and (values.get("bf16") or values.get("pure_bf16")):
        yield "bf16 and fp16 are both asked for", "fp16=false"
    if values.get("bf16") and values.get("pure_bf16"):
        yield "bf16 and pure_bf16 are both asked for", "pure_bf16=false"


def _packing(values: Mapping[str, Any]) -> Iterator[Problem]:
    stage, neat = values.get("stage"), values.get("neat_packing")
    if stage == "sft" and values.get("packing") and not neat:
        yield "packing without neat_packing lets packed rows read one another", "neat_packing=true"
    if stage not in {"sft", None} and neat:
        yield f"neat_packing is for stage sft only, found stage {stage}", "neat_packing=false"


def _checkpoints(values: Mapping[str, Any]) -> Iterator[Problem]:
    """What transformers' arguments or LLaMA-Factory's early stopping refuse, said with its cure."""
    evaluated = str(values.get("eval_strategy") or values.get("evaluation_strategy") or "no")
    saved = str(values.get("save_strategy") or "steps")
    best, stopping = values.get("load_best_model_at_end"), values.get("early_stopping_steps")
    if stopping is not None and not best:
        yield "early_stopping_steps needs the best checkpoint", "load_best_model_at_end=true"
    if best and saved != "best":
        every = values.get("save_steps", 500)
        looked = values.get("eval_steps") or values.get("logging_steps", 500)
        if evaluated != saved:
            yield (
                f"load_best_model_at_end needs eval_strategy as save_strategy, found {evaluated} "
                f"and {saved}",
                f"eval_strategy={saved}",
            )
        elif saved == "steps" and every >= 1 and looked >= 1 and every % looked:
            yield (
                f"load_best_model_at_end saves at evaluations only, found save_steps {every} and "
                f"eval_steps {looked}",
                f"save_steps={max(round(every / looked), 1) * looked}",
            )
    if evaluated != "no" and not (values.get("eval_dataset") or values.get("val_size")):
        yield (
            f"eval_strategy is {evaluated}, and no data set is named for it",
            "eval_dataset=<name>_val",
        )


def _packages(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Optional packages that LLaMA-Factory or transformers would miss late, after the model."""
    wanted = {
        "quantization_bit": "bitsandbytes" if values.get("quantization_bit") else "",
        "flash_attn": "flash_attn" if values.get("flash_attn") == "fa2" else "",
        "deepspeed": "deepspeed" if values.get("deepspeed") else "",
    }
    trackers = values.get("report_to")
    for tracker in names([trackers] if isinstance(trackers, str) else trackers):
        wanted[f"report_to {tracker}"] = (
            tracker if tracker in {"wandb", "swanlab", "mlflow"} else ""
        )
    for key, package in wanted.items():
        if package and importlib.util.find_spec(package) is None:
            yield f"{key} needs the package {package}", f"run: uv pip install {package}"
    file = values.get("deepspeed")
    if isinstance(file, str) and not resolve(file).is_file():
        yield f"deepspeed: {shown(resolve(file))} does not exist", "deepspeed=<a JSON file>"
