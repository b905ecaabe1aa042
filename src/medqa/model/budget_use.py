"""Memory of what is done with a trained model: compared, merged, served."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from medqa.model.budget_ledger import forward_transient
from medqa.model.budget_shape import BYTES
from medqa.model.budget_terms import Peak, highest
from medqa.model.budget_training import Run, logit

ANSWERS = {"batch_size": 8, "cutoff_len": 1024, "max_new_tokens": 512}
"""Defaults of a compare YAML (compare/plan.py)."""

LOGITS = 2**22
"""So many are made at a time where likelihoods are measured (compare/likelihood.py)."""


def compare(given: Mapping[str, Any], run: Run) -> Peak:
    """Returns the peak of answers and likelihoods of base and tuned model.

    compare/generate.py: one base in the type it is stored in, the adapter in float32 beside it;
    compare/decode.py: seats that are filled while others are in the middle of their answers.
    """
    s, how = run.shape, replace(run.how, autocast=False, bits=0, trained=0, pure=False)
    how = replace(how, weights=s.dtype, compute=s.dtype)
    asked = ANSWERS | {key: int(given[key]) for key in ANSWERS if given.get(key)}
    rows, cutoff, new = asked["batch_size"], asked["cutoff_len"], asked["max_new_tokens"]
    c = BYTES[s.dtype]
    question = max(min(cutoff, s.reach - new), 1)  # a pair fits in cutoff_len, so a question does
    cached = rows * question * s.cached * c
    moments = {
        "merging the adapter": {"activations": s.widest * (4 + c)},
        "reading the questions": {
            "activations": rows * question * (forward_transient(s, how) + question * c),
            "kv_cache": cached,
        },
        # A layer's keys and values are there twice while a token is added to them.
        "answering": {
            "kv_cache": rows * (question + new) * s.cached * c * (s.layers + 1) // s.layers,
            "logits": rows * s.vocab * logit(c),
        },
        "likelihoods": {
            "activations": rows * cutoff * forward_transient(s, how),
            "logits": max(LOGITS, s.vocab) * logit(c),
        },
    }
    return highest("compare", _loaded(run), moments)


def merge(given: Mapping[str, Any], run: Run) -> Peak:
    """Returns the peak of LLaMA-Factory's export (export/merge.py) and of the check after it."""
    c = BYTES[run.shape.dtype]
    moments = {"adding a product to a weight": {"activations": run.shape.widest * (4 + c)}}
    place = "card" if given.get("export_device") == "auto" else "ram"
    return highest("merge", _loaded(run), moments, place)


def serve(run: Run) -> Peak:
    """Returns the peak of the merged model at one request as long as it reaches."""
    s, c = run.shape, BYTES[run.shape.dtype]
    bare = replace(run.how, weights=s.dtype, compute=s.dtype, autocast=False, bits=0, trained=0)
    bare = replace(bare, rank=0, targets=frozenset(), dora=False, pure=False)
    reading = {
        "activations": s.reach * forward_transient(s, bare),
        "kv_cache": s.reach * s.cached * c,
        "logits": s.vocab * logit(c),
    }
    return highest("serve", {"weights": s.parameters * c}, {"reading the longest request": reading})


def _loaded(run: Run) -> dict[str, int]:
    """Returns base and adapter as they are loaded for anything but training."""
    adapter = 0 if run.how.trained else run.trained * 4
    return {"weights": run.shape.parameters * BYTES[run.shape.dtype], "adapter": adapter}
