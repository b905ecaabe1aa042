"""Where LLaMA-Factory 0.9.5 has a defect, its remedy.

Each has the reason, the upstream file, and a test that fails once upstream no longer needs it, so
that it is deleted then.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SPACE = "▁"


@contextmanager
def applied() -> Iterator[None]:
    """Puts every remedy in place for the length of the block; imports LLaMA-Factory."""
    from llamafactory.data.template import Template
    from llamafactory.model import loader
    from transformers import GlmForCausalLM

    to_ollama, liger = Template._convert_slots_to_ollama, loader.apply_liger_kernel
    forward = GlmForCausalLM.forward
    Template._convert_slots_to_ollama = staticmethod(_convert_slots_to_ollama(to_ollama))
    loader.apply_liger_kernel = _apply_liger_kernel(liger)
    try:
        yield
    finally:
        Template._convert_slots_to_ollama = staticmethod(to_ollama)
        loader.apply_liger_kernel = liger
        GlmForCausalLM.forward = forward  # type: ignore[method-assign]


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

        if not torch.accelerator.is_available():  # the kernel is Triton's
            return
        from liger_kernel.transformers.model.glm4 import lce_forward  # type: ignore[import-untyped]
        from transformers import GlmForCausalLM

        GlmForCausalLM.forward = lce_forward  # type: ignore[method-assign]

    return apply
