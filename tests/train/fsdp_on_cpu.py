"""The worker with FSDP on CPUs: torchrun --nproc-per-node 2 -m tests.train.fsdp_on_cpu RECIPE ...

accelerate gives FSDP to GPUs alone; on CPUs it trains with DDP instead, without a word
(accelerate/state.py, `AcceleratorState.__init__`). Everything else is as on GPUs: LLaMA-Factory
loads, accelerate shards, torch gathers and reduces, here through gloo.
"""

from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from medqa.train.worker import main

_init = AcceleratorState.__init__


def _init_with_fsdp(self: Any, *args: Any, fsdp_plugin: Any = None, **rest: Any) -> None:
    _init(self, *args, fsdp_plugin=fsdp_plugin, **rest)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


if __name__ == "__main__":
    AcceleratorState.__init__ = _init_with_fsdp
    main()
