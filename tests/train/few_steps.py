"""Trains recipes for a few steps and loads what each left behind; run by test_recipes.

All in one process, because importing LLaMA-Factory costs eight seconds: in the project folder,
``python -m tests.train.few_steps OUT.json RECIPE.yaml[,key=value,...] ...``.
"""

import gc
import json
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medqa.config import read_yaml
from medqa.train import worker

MEASURED = 20  # validation rows


def main() -> None:
    results: dict[str, dict[str, Any]] = {}
    out, *runs = sys.argv[1:]
    for run in runs:
        file, *overrides = run.split(",")
        values = read_yaml(Path(file), overrides)
        try:
            sys.argv = ["worker", file, *overrides]
            worker.main()
            results[values["output_dir"]] = measured(values)
        except Exception:  # one that fails is one test that fails
            results[values["output_dir"]] = {"error": traceback.format_exc()}
        gc.collect()
    Path(out).write_text(json.dumps(results), encoding="utf-8")


def measured(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the loss on validation rows before and after, by transformers and PEFT alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(values["output_dir"])
    tokenizer = AutoTokenizer.from_pretrained(values["model_name_or_path"])
    before = AutoModelForCausalLM.from_pretrained(values["model_name_or_path"]).eval()
    registry = json.loads(Path("data/dataset_info.json").read_text(encoding="utf-8"))
    file = Path("data") / registry[values["eval_dataset"]]["file_name"]
    text = file.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()[:MEASURED]]
    with torch.inference_mode():
        base = mean_loss(before, tokenizer, rows, values["stage"])
        if (folder / "adapter_config.json").is_file():
            after = PeftModel.from_pretrained(before, folder).eval()
        else:
            after = AutoModelForCausalLM.from_pretrained(folder).eval()
        tuned = mean_loss(after, tokenizer, rows, values["stage"])
    return {"before": base, "after": tuned}


def mean_loss(model: Any, tokenizer: Any, rows: list[dict[str, Any]], stage: str) -> float:
    """Nats a token of answers (sft) or texts (pt); nats that the worse answer is ahead (dpo)."""
    losses = []
    for row in rows:
        if stage == "pt":
            ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
            losses.append(nats(model, ids[:1], ids[1:256]) / len(ids[1:256]))
            continue
        asked = [{"role": "user", "content": row["instruction"]}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        end = [tokenizer.eos_token_id]
        said = {
            key: tokenizer(row[key], add_special_tokens=False)["input_ids"] + end
            for key in ("output", "chosen", "rejected")
            if key in row
        }
        if stage == "dpo":
            chosen, rejected = (nats(model, prompt, said[key]) for key in ("chosen", "rejected"))
            losses.append(chosen - rejected)
        else:
            losses.append(nats(model, prompt, said["output"]) / len(said["output"]))
    return sum(losses) / len(losses)


def nats(model: Any, prompt: list[int], said: list[int]) -> float:
    """Returns the negative log-likelihood of `said` after `prompt`."""
    import torch

    logits = model(input_ids=torch.tensor([prompt + said])).logits[0, -len(said) - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(said), reduction="sum"))


if __name__ == "__main__":
    main()
