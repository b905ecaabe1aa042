"""Checkpoints as transformers' Trainer leaves them, small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file


def write_checkpoint(target: Path, step: int, *, ranks: int = 1, **state: Any) -> Path:
    """Writes ``checkpoint-<step>`` of a LoRA run of twenty steps; returns its folder.

    Args:
        target: The output folder.
        step: The step.
        ranks: How many processes trained.
        state: What ``trainer_state.json`` says besides.
    """
    folder = target / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file(
        {"lora_A.weight": np.full((8, 16), step, np.float32)}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    (folder / "README.md").write_text("", encoding="utf-8")
    torch.save({"state": {0: {"exp_avg": torch.ones(64, 16)}}}, folder / "optimizer.pt")
    torch.save({"last_epoch": step}, folder / "scheduler.pt")
    names = [f"rng_state_{rank}.pth" for rank in range(ranks)] if ranks > 1 else ["rng_state.pth"]
    for name in names:
        torch.save({"cpu": torch.get_rng_state()}, folder / name)
    written = {"global_step": step, "max_steps": 20, "log_history": []} | state
    (folder / "trainer_state.json").write_text(json.dumps(written), encoding="utf-8")
    return folder
