"""The same engine on vLLM, for many users on a card it supports.

Written against the source of vLLM 0.19.1, which knows GlmForCausalLM and pins our torch, but an
older numpy than ours: it wants an environment of its own. It has not been run on a card. Base and
tuned are told apart by a LoRARequest.
"""

import itertools
import json
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from medqa.errors import CheckpointError, MissingInputError
from medqa.paths import resolve, shown
from medqa.serve.detokenizer import Detokenizer
from medqa.serve.engine import GenerationError, Piece, require_reach
from medqa.serve.prompt import ChatFormat
from medqa.serve.sides import require_switchable

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as ``max_lora_rank`` (``vllm/config/lora.py``)."""


class VllmEngine:
    """Stands in for `medqa.serve.engine.Engine`; same arguments, attributes and errors.

    vLLM computes in a process of its own. Its answers may differ from the one-by-one answers in
    the last bits of a probability, and so in a token, as any batch's may in half precision.
    """

    def __init__(self, model: str, adapter: str | None = None, *, seats: int = 32) -> None:
        self.sides = ("base", "tuned") if adapter else ("tuned",)
        self.running = 0
        self._folders = model, adapter
        self._seats = seats
        self._numbers = itertools.count()
        self._engine: Any = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Loads the model; blocks until vLLM is ready.

        Raises:
            MissingInputError: vLLM is not installed, or the adapter is not there.
            CheckpointError: The adapter is none that vLLM can apply.
        """
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.lora.request import LoRARequest
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError:
            raise MissingInputError(
                "engine: vllm needs vLLM, in an environment of its own; run: pip install "
                "'medqa[vllm]', or take engine: continuous"
            ) from None
        from transformers import AutoTokenizer, GenerationConfig

        model, adapter = self._folders
        folder = resolve(model)
        options: dict[str, Any] = {}
        self._lora = None
        if adapter:
            require_switchable(adapter, model)
            options = {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(adapter)}
            self._copy = tempfile.TemporaryDirectory(prefix="medqa-vllm-")
            write_apart(resolve(adapter), Path(self._copy.name))
            self._lora = LoRARequest("tuned", 1, self._copy.name)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._format = ChatFormat(self._tokenizer, shown(folder))
        self._defaults: Any = GenerationConfig.from_pretrained(folder)
        end = self._defaults.eos_token_id
        self._stops = [end] if isinstance(end, int) else list(end)
        self._engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(model=str(folder), max_num_seqs=self._seats, **options)
        )

    def close(self) -> None:
        """Ends vLLM's process, and with it whatever runs."""
        engine, self._engine = self._engine, None
        if engine:
            engine.shutdown()
        if self._copy:
            self._copy.cleanup()

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the prompt of a chat."""
        return self._format.encode(messages)

    def require_room(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        """Raises PromptTooLongError where `answer` would."""
        require_reach(prompt, max_new_tokens, self._started().model_config.max_model_len)

    async def answer(
        self,
        side: str,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Answers; ``aclose()``, or a cancellation, stops the generation.

        Raises:
            PromptTooLongError: See `require_room`.
            GenerationError: vLLM failed.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        assert side in self.sides
        self.require_room(prompt, max_new_tokens)
        how = SamplingParams(
            max_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            repetition_penalty=self._defaults.repetition_penalty or 1.0,
            stop_token_ids=self._stops,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        outputs = self._started().generate(
            {"prompt_token_ids": list(prompt)},
            how,
            f"medqa-{next(self._numbers)}",
            lora_request=self._lora if side == "tuned" else None,
        )
        text, tokens = Detokenizer(self._tokenizer), 0
        self.running += 1
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    new = list(output.outputs[0].token_ids)
                    tokens += len(new)
                    words = text.add(new) if new else ""
                    if not output.finished:
                        yield Piece(words, tokens)
                        continue
                    stopped = output.outputs[0].finish_reason == "stop"
                    yield Piece(
                        words + text.end(cut=not stopped), tokens, "stop" if stopped else "length"
                    )
        except Exception as error:  # vLLM raises many kinds
            raise GenerationError(f"vLLM failed: {error}") from error
        finally:
            self.running -= 1

    def _started(self) -> Any:
        if self._engine is None:
            raise GenerationError("the engine is not running")
        return self._engine


def _rank(adapter: str) -> int:
    """Returns the smallest rank that vLLM can be told of and that holds the adapter's.

    Raises:
        CheckpointError: vLLM cannot apply such an adapter.
    """
    folder = resolve(adapter)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    ranks = [config.get("r") or 0, *config.get("rank_pattern", {}).values()]
    problem = ""
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("modules_to_save"):
        problem = "is no plain LoRA"
    elif max(ranks) > _RANKS[-1]:
        problem = f"has rank {max(ranks)}"
    if problem:
        raise CheckpointError(
            f"adapter {shown(folder)} {problem}, which vLLM cannot apply; take engine: continuous, "
            "or merge it (scripts/export.py) and serve the merged model"
        )
    return next(rank for rank in _RANKS if rank >= max(ranks))


def write_apart(adapter: Path, folder: Path) -> None:
    """Writes a LoRA adapter with ``gate_up_proj`` as two modules, ``gate_proj`` and ``up_proj``.

    vLLM loads the fused layer of a GLM checkpoint, but of an adapter only its two halves
    (``vllm/lora/worker_manager.py``). The halves share A; B's rows are gate's, then up's.
    """
    from safetensors.torch import load_file, save_file

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    halves = ("gate_proj", "up_proj")
    weights = {}
    for name, weight in load_file(adapter / "adapter_model.safetensors").items():
        if ".gate_up_proj." not in name:
            weights[name] = weight
            continue
        parts = weight.chunk(2) if ".lora_B." in name else (weight, weight.clone())
        for half, part in zip(halves, parts, strict=True):
            weights[name.replace("gate_up_proj", half)] = part.contiguous()
    targets = set(config["target_modules"])
    if "gate_up_proj" in targets:
        config["target_modules"] = sorted(targets - {"gate_up_proj"} | set(halves))
    save_file(weights, folder / "adapter_model.safetensors")
    text = json.dumps(config, indent=2)
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
