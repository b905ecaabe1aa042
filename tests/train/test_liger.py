"""Liger's fused cross-entropy on GLM learns what the plain one does, checked without a GPU.

Triton runs its kernels in Python when TRITON_INTERPRET is set before it is imported, hence the
process of its own. Only the memory and the speed of it need a card: scripts/bench/gpu.sh.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json
from types import SimpleNamespace

import torch
from transformers import GlmConfig, GlmForCausalLM
from triton.runtime import interpreter

from medqa import remedies

# NumPy 2.4 makes no number of an array of one element, which Triton 3.6's interpreter asks for.
patch = interpreter._patch_lang_tensor
def patched(tensor, *scope):
    patch(tensor, *scope)
    tensor.__index__ = lambda self: int(self.handle.data.item())
interpreter._patch_lang_tensor = patched
torch.accelerator.is_available = lambda: True  # the remedy asks

torch.manual_seed(0)
sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
config = GlmConfig(**sizes, num_key_value_heads=2, head_dim=16, vocab_size=512, pad_token_id=0)
model = GlmForCausalLM(config).train()
ids = torch.randint(5, 500, (2, 40))
labels = ids.clone()
labels[:, :10] = labels[1, 30:] = -100

def learned(**more):
    model.zero_grad()
    result = model(input_ids=ids, labels=labels, use_cache=False, **more)
    result.loss.backward()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    return result.loss.item(), gradient.clone(), result.logits

found = []
with remedies.applied():
    from llamafactory.model import loader
    for more in ({}, {"num_items_in_batch": torch.tensor(77)}):
        GlmForCausalLM.forward = plain = globals().setdefault("plain", GlmForCausalLM.forward)
        loss, gradient, logits = learned(**more)
        wanted = SimpleNamespace(enable_liger_kernel=True)
        loader.apply_liger_kernel(config, wanted, is_trainable=True, require_logits=False)
        fused, fused_gradient, fused_logits = learned(**more)
        found.append({
            "loss": [loss, fused],
            "gradient": ((fused_gradient - gradient).norm() / gradient.norm()).item(),
            "logits": [logits is not None, fused_logits is not None],
        })
print(json.dumps(found))
"""


@pytest.mark.slow
def test_fused_and_plain_cross_entropy_learn_the_same(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        cwd=root,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 2
    for one in found:
        loss, fused = one["loss"]
        assert fused == pytest.approx(loss, rel=1e-5)
        assert one["gradient"] < 1e-5
        assert one["logits"] == [True, False], "the fused one was expected to make no logits"
    assert found[0]["loss"] != found[1]["loss"]
