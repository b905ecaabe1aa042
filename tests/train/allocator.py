"""Measures the memory of a real training: python -m tests.train.allocator VALUES.json.

The bytes of all tensors alive, at their highest within a training step and within an evaluation,
as PyTorch's own CPU allocator counts them (each allocation and each release, those of the C++ side
included). What was alive before a phase began is found through the garbage collector.
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback


class Probe(TrainerCallback):
    """Profiles the allocator in whole steps from the second on, and in every evaluation."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, int]] = {}
        self.weights: list[str] = []
        self._profile: Any = None
        self._before = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        model.register_forward_pre_hook(self._see, with_kwargs=True)
        frozen = {str(p.dtype) for p in model.parameters() if not p.requires_grad}
        self.weights = sorted(dtype.removeprefix("torch.") for dtype in frozen)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:  # the optimiser has its state
            self._begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end("train")
        self._begin()  # an evaluation may follow

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end("evaluate")

    def _see(self, model: Any, args: Any, kwargs: Any) -> None:
        phase = "train" if model.training else "evaluate"
        rows, length = kwargs["input_ids"].shape
        biggest = self.shapes.get(phase, (0, 0))
        if self._profile is not None and rows * length >= biggest[0] * biggest[1]:
            self.shapes[phase] = (rows, length)

    def _begin(self) -> None:
        self._stop()
        gc.collect()
        self._before = alive()
        self._profile = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        )
        self._profile.start()

    def _end(self, phase: str) -> None:
        if highest := self._stop():
            self.peaks[phase] = max(self.peaks.get(phase, 0), self._before + highest)

    def _stop(self) -> int:
        if self._profile is None:
            return 0
        self._profile.stop()
        events = self._profile.profiler.kineto_results.events()
        changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
        self._profile = None
        now = highest = 0
        for _, change in sorted(changes, key=lambda pair: pair[0]):
            now += change
            highest = max(highest, now)
        return highest


def alive() -> int:
    """Returns the bytes of all storages that a Python object holds."""
    found = {}
    for thing in gc.get_objects():
        try:
            if isinstance(thing, torch.Tensor) and thing.device.type == "cpu":
                storage = thing.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
        except (ReferenceError, RuntimeError, NotImplementedError):
            continue
    return sum(found.values())


def main(values: dict[str, Any]) -> None:
    """Trains as our worker does, and prints what was measured as JSON on the last line."""
    from llamafactory.train.tuner import run_exp

    from medqa import remedies
    from medqa.train import prefix

    probe = Probe()
    with remedies.applied(), prefix.trainable():
        run_exp(values, callbacks=[probe])
    print(json.dumps({"peaks": probe.peaks, "shapes": probe.shapes, "weights": probe.weights}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
