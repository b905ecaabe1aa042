"""Where LLaMA-Factory 0.9.5, or the Gradio under its web UI, has a defect, its remedy.

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

from medqa import provenance
from medqa.errors import CheckpointError, TargetError
from medqa.paths import shown

SPACE = "▁"
WORKER = "medqa.train.worker"
"""The module that trains in every process that torchrun starts."""

_MAY_NAME_CODE = ("config.json", "tokenizer_config.json")
"""Files of a checkpoint in which ``auto_map`` names classes of its own."""


@contextmanager
def applied() -> Iterator[None]:
    """Puts every remedy in place for the length of the block; imports LLaMA-Factory."""
    from llamafactory import launcher
    from llamafactory.data.template import Template
    from llamafactory.model import loader
    from llamafactory.train import tuner
    from transformers import GlmForCausalLM

    to_ollama = _convert_slots_to_ollama(Template._convert_slots_to_ollama)
    with replaced(
        (Template, "_convert_slots_to_ollama", staticmethod(to_ollama)),
        (loader, "_get_init_kwargs", _get_init_kwargs(loader._get_init_kwargs)),
        (loader, "apply_liger_kernel", _apply_liger_kernel(loader.apply_liger_kernel)),
        (GlmForCausalLM, "forward", GlmForCausalLM.forward),  # the one above sets it
        (launcher, "__file__", WORKER),
        (launcher, "subprocess", SimpleNamespace(run=_become_torchrun)),
        (tuner, "Worker", _ray_worker(tuner.Worker)),
        (tuner, "_ray_training_function", _ray_training_function(tuner)),
    ):
        yield


@contextmanager
def in_webui() -> Iterator[None]:
    """Puts in place, for the length of the block, what only the web UI needs beside `applied`."""
    from gradio.routes import ORJSONResponse
    from llamafactory.webui import runner
    from llamafactory.webui.components import export

    with replaced(
        (ORJSONResponse, "_render", staticmethod(_as_json)),
        (runner, "Popen", _start_trainer(runner.Popen)),
        (export, "export_model", _into_a_new_folder(export.export_model)),
    ):
        yield


@contextmanager
def replaced(*replacements: tuple[Any, str, Any]) -> Iterator[None]:
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


def _get_init_kwargs(upstream: Any) -> Any:
    """Returns the function that every loading of a tokenizer, a config or a model begins with.

    Upstream: ``llamafactory/model/loader.py``, ``_get_init_kwargs``. The web UI passes
    ``trust_remote_code=True`` whatever the model, so that code in any folder, or on the hub under
    any name, that somebody types into the page would be run. A native GLM needs none.

    Raises (the returned function):
        CheckpointError: The model's folder holds code of its own.
    """

    def init_kwargs(model_args: Any) -> Any:
        require_no_code(Path(model_args.model_name_or_path))
        model_args.trust_remote_code = False  # loaders read it here too
        return upstream(model_args)

    return init_kwargs


def require_no_code(folder: Path) -> None:
    """Raises CheckpointError if the model in `folder` brings code of its own."""
    configs = [provenance.read(folder / name) or {} for name in _MAY_NAME_CODE]
    code = next(folder.glob("*.py"), None)
    if code or any("auto_map" in config for config in configs):
        raise CheckpointError(
            f"{shown(folder)} brings code of its own ({code.name if code else 'auto_map'}), which "
            f"is never run; run: python scripts/import_model.py {shown(folder)} models/NAME"
        )


def _start_trainer(upstream: Any) -> Any:
    """Returns what starts a training, or an evaluation, from the web UI.

    Upstream: ``llamafactory/webui/runner.py``, ``Runner._launch``. It starts the
    ``llamafactory-cli`` that is first on the PATH, in which there are no remedies: no fused loss
    for GLM, so a recipe that fits a card from the command line does not fit it from the page.
    A session of its own keeps a Ctrl-C in the terminal from the trainer: the page ends it.
    """

    def start(command: Sequence[str], **rest: Any) -> Any:
        _, _, file = command  # llamafactory-cli train FILE
        return upstream([sys.executable, "-m", WORKER, file], start_new_session=True, **rest)

    return start


def _into_a_new_folder(upstream: Any) -> Any:
    """Returns the function behind the button 开始导出 of the web UI.

    Upstream: ``llamafactory/webui/components/export.py``, ``save_model``. It writes into any
    folder: over the base model itself, or beside the record of a checked export, which then would
    vouch for weights that it never saw.

    Raises (the returned function):
        TargetError: The folder is not empty.
    """

    def export(args: Mapping[str, Any]) -> None:
        folder = Path(args["export_dir"])
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise TargetError(f"{folder} 已存在，里面的内容不会被覆盖；请换一个导出目录")
        upstream(dict(args))

    return export


def _as_json(content: Any) -> bytes:
    """Writes an answer of Gradio's server.

    Upstream: ``gradio/routes.py``, ``ORJSONResponse._render`` (5.50). It writes what a JSON element
    holds as the text ``root=[...]``, so the preview of a data set is one long line of Python.
    """
    import orjson
    from gradio.data_classes import JsonData

    return orjson.dumps(
        content,
        option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATETIME,
        default=lambda value: value.root if isinstance(value, JsonData) else str(value),
    )


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

        with replaced(
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
