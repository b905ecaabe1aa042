"""Where LLaMA-Factory 0.9.5 has a defect, its remedy.

Each has the reason, the upstream file, and a test that fails once upstream no longer needs it, so
that it is deleted then.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SPACE = "▁"
WORKER = "medqa.train.worker"
"""The module that trains in every process that torchrun starts."""


@contextmanager
def applied() -> Iterator[None]:
    """Puts every remedy in place for the length of the block; imports LLaMA-Factory."""
    from llamafactory import launcher
    from llamafactory.data.template import Template
    from llamafactory.model import loader
    from llamafactory.train import tuner
    from transformers import GlmForCausalLM

    to_ollama = _convert_slots_to_ollama(Template._convert_slots_to_ollama)
    with _replaced(
        (Template, "_convert_slots_to_ollama", staticmethod(to_ollama)),
        (loader, "apply_liger_kernel", _apply_liger_kernel(loader.apply_liger_kernel)),
        (GlmForCausalLM, "forward", GlmForCausalLM.forward),  # the one above sets it
        (launcher, "__file__", WORKER),
        (launcher, "subprocess", SimpleNamespace(run=_become_torchrun)),
        (tuner, "Worker", _ray_worker(tuner.Worker)),
        (tuner, "_ray_training_function", _ray_training_function(tuner)),
    ):
        yield


@contextmanager
def _replaced(*replacements: tuple[Any, str, Any]) -> Iterator[None]:
    """Sets attributes, each given as (owner, name, value), for the length of the block."""
    with ExitStack() as taken_back:
        for owner, name, value in replacements:
            # From the dictionary: getattr would unwrap a staticmethod.
            taken_back.callback(setattr, owner, name, vars(owner)[name])
            setattr(owner, name, value)
        yield


def _convert_slots_to_ollama(upstream: Any) -> Any:
    """Returns the function that writes one message format of an Ollama Modelfile.

    Upstream: ``llamafactory/data/template.py``, ``Template._convert_slots_to_ollama``.

    * It raises ``ValueError: Dict is not supported.`` for the control tokens of template chatglm3
      (``{"token": "<|user|>"}``), so ``llamafactory-cli export`` ends with exit code 1 after the
      weights are written, and the web UI's export shows only "Error". A Modelfile is text: the
      token's name stands for it.
    * Training encodes text slots one by one, and a SentencePiece tokenizer puts a space in front of
      each. A Modelfile is encoded in one go, so that space has to be written where one text slot
      follows another, or the question's first token differs from training.
    """

    def convert(slots: Any, tokenizer: Any, placeholder: str = "content") -> str:
        spaced = tokenizer.tokenize("a")[0].startswith(SPACE)
        text, after_text = "", False
        for slot in slots:
            if isinstance(slot, dict):
                text += str(slot["token"])
            else:
                text += " " if spaced and after_text and isinstance(slot, str) else ""
                text += upstream([slot], tokenizer, placeholder)
            after_text = isinstance(slot, str)
        return text

    return convert


def _apply_liger_kernel(upstream: Any) -> Any:
    """Returns the function that ``enable_liger_kernel: true`` calls before a model is loaded.

    Upstream: ``llamafactory/model/model_utils/liger_kernel.py``, ``apply_liger_kernel``.

    For model type glm it applies Liger's kernels to transformers' ``modeling_glm4``, says "Liger
    kernel has been applied to the model", and leaves ``modeling_glm``, which is ChatGLM3, as it
    was. What then is missing is the fused linear cross-entropy, without which the logits take three
    float32 copies: 6 GiB at 2048 tokens times 4. Its forward fits GLM's (same submodules), so it is
    set here. Norm and feed-forward stay transformers' own.
    """

    def apply(config: Any, model_args: Any, is_trainable: bool, require_logits: bool) -> None:
        upstream(config, model_args, is_trainable, require_logits)
        wanted = model_args.enable_liger_kernel and is_trainable and not require_logits
        if not wanted or getattr(config, "model_type", None) != "glm":
            return
        import torch
        from llamafactory.extras import logging

        # A name under LLaMA-Factory's own: its handler writes it, in every process.
        log = logging.get_logger(f"llamafactory.{__name__}")
        if not torch.accelerator.is_available():
            log.info("GLM keeps its own loss: Liger's kernels are Triton's and need a GPU.")
            return
        from liger_kernel.transformers.model.glm4 import lce_forward  # type: ignore[import-untyped]
        from transformers import GlmForCausalLM

        GlmForCausalLM.forward = lce_forward  # type: ignore[method-assign]
        log.info("Liger's fused linear cross-entropy has been set in GlmForCausalLM.")

    return apply


def _become_torchrun(command: Sequence[str], *, env: Mapping[str, str], check: bool) -> None:
    """Stands in for ``subprocess.run`` where LLaMA-Factory's launcher starts torchrun.

    Upstream: ``llamafactory/launcher.py``, ``launch``. It has made torchrun's options of what the
    environment asks for (FORCE_TORCHRUN, NPROC_PER_NODE, NNODES, NODE_RANK, MASTER_ADDR,
    MASTER_PORT, RDZV_ID, MAX_RESTARTS ...), and they stay as they are. But

    * it runs its own file in every process, where there are no remedies: here it is `WORKER`;
    * it waits for torchrun as its child, so a SIGTERM ends the launcher alone, and torchrun trains
      on: here this process becomes torchrun, which ends its workers on SIGTERM and SIGINT, and it
      keeps the lock on the output folder;
    * it tears the arguments at every space: here they are those of this process;
    * it takes the torchrun that is first on the PATH: here it is this interpreter's.
    """
    options = command[1 : list(command).index(WORKER)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *options, "--module", WORKER]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [*torchrun, *sys.argv[1:]], dict(env))


def _ray_worker(upstream: Any) -> Any:
    """Returns the class of which Ray makes one object in a process for every card.

    Upstream: ``llamafactory/train/tuner.py``, ``Worker``. Ray's processes start afresh: without the
    remedies, and in the folder in which somebody typed ``ray start``, where the recipe's paths lead
    nowhere, and a model's is taken for a name on the hub.
    """
    here = Path.cwd()

    class Worker(upstream):  # type: ignore[misc]
        def _training_function(self, config: Any) -> None:
            os.chdir(here)
            with applied():
                super()._training_function(config)

    return Worker


def _ray_training_function(tuner: Any) -> Any:
    """Returns the function that trains on a Ray cluster (``USE_RAY=1``).

    Upstream: ``llamafactory/train/tuner.py``, ``_ray_training_function``, and three helpers of
    ``llamafactory/train/trainer_utils.py`` that it calls.

    * It asks for 10 CPUs a card, for every card of the cluster, whatever ``ray_num_workers`` says,
      and waits for ever where a machine has fewer: a box with one card and 8 cores. A cluster
      without cards has as many "cards" as CPUs, so it never has ten times as many. Here a worker
      gets its share of its machine's CPUs, 10 at most, and only ``ray_num_workers`` are asked for.
    * It asks Ray's dashboard for the head node, which only ``ray[default]`` brings and which need
      not run. Here Ray itself is asked.
    """
    upstream, settings = tuner._ray_training_function, tuner.get_ray_remote_config_for_worker

    def train(ray_args: Any, config: Any) -> None:
        import ray
        from llamafactory.train import trainer_utils
        from ray.util.placement_group import placement_group

        def places(bundles: list[dict[str, int]], strategy: str) -> Any:
            bundle = bundles[0] | {"CPU": _cpus_per_worker(ray.nodes())}
            return placement_group([bundle] * ray_args.ray_num_workers, strategy=strategy)

        def of_worker(**known: Any) -> Any:
            return settings(**known) | {"num_cpus": _cpus_per_worker(ray.nodes())}

        with _replaced(
            (trainer_utils, "placement_group", places),
            (tuner, "get_ray_remote_config_for_worker", of_worker),
            (tuner, "get_ray_head_node_ip", lambda: _head(ray.nodes())),
        ):
            upstream(ray_args, config)

    return train


def _cpus_per_worker(nodes: Sequence[Mapping[str, Any]], most: int = 10) -> int:
    """Returns how many CPUs every card of a Ray cluster can have, 1 to `most`."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    shares = [int(r.get("CPU", 0) // r["GPU"]) for r in resources if r.get("GPU")]
    return max(1, min(most, *shares)) if shares else 1


def _head(nodes: Sequence[Mapping[str, Any]]) -> str:
    """Returns the address of a Ray cluster's head node."""
    return str(
        next(
            node["NodeManagerAddress"]
            for node in nodes
            if node["Alive"] and "node:__internal_head__" in node["Resources"]
        )
    )
