"""The tests' own copy of the original network against the original code's figures."""

import json

import numpy as np
from safetensors.torch import load_file

from .original_chatglm import logits


def test_it_reproduces_the_original_code(golden):
    config = json.loads((golden / "config.json").read_text(encoding="utf-8"))
    weights = load_file(golden / "model.safetensors")
    with np.load(golden / "golden.npz") as figures:
        mask = figures["attention_mask"]
        made = logits(
            config, weights, figures["input_ids"], positions=figures["position_ids"], mask=mask
        )
        assert np.abs(made - figures["logits"])[mask == 1].max() < 1e-5
