"""The loaded model, with the adapter on for some rows of a batch and off for the others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medqa import provenance
from medqa.errors import CheckpointError, MissingInputError
from medqa.paths import resolve, shown
from medqa.serve import attention

if TYPE_CHECKING:
    import torch

_SOLD_OUT = ("pissa", "olora", "corda", "loftq")
"""Ways to begin an adapter that take its beginning out of the base's own weights."""


class Sides:
    """A native model, alone or with an adapter of it.

    Attributes:
        model: The GlmForCausalLM; with an adapter its layers answer as `select` last said.
        tokenizer: The tokenizer in the model's folder.

    Args:
        model: The model's folder.
        adapter: The adapter's folder, or none.

    Raises:
        MissingInputError: One of them is not there.
        CheckpointError: They do not belong together, or the adapter cannot be switched off.
    """

    def __init__(self, model: str, adapter: str | None) -> None:
        import torch
        from transformers import AutoTokenizer, GlmForCausalLM
        from transformers.utils import logging

        folder = resolve(model)
        if not (folder / "config.json").is_file():
            raise MissingInputError(f"model {shown(folder)} does not exist; run: make model")
        if adapter:
            require_switchable(adapter, model)
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = GlmForCausalLM.from_pretrained(folder, dtype="auto", device_map=device)
        attention.use(self.model)
        self._switches: list[_Switch] = []
        if adapter:
            self._attach(adapter)

    def select(self, tuned: Sequence[bool]) -> None:
        """Says for which rows of the next forward the adapter is on."""
        import torch

        if not self._switches:
            return
        rows = None
        if any(tuned) and not all(tuned):
            rows = torch.tensor(tuned, device=self.model.device)
        for switch in self._switches:
            switch.rows, switch.on = rows, any(tuned)

    def _attach(self, adapter: str) -> None:
        from peft import PeftModel
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        tuned = PeftModel.from_pretrained(self.model, resolve(adapter)).eval()
        self.model = tuned.get_base_model()
        for module in list(self.model.modules()):
            if isinstance(module, AuxiliaryTrainingWrapper):
                self._switches.append(_Switch(module, module.original_module))
            elif isinstance(module, BaseTunerLayer):
                self._switches.append(_Switch(module, module.base_layer))


class _Switch:
    """Stands before the forward of one adapted layer.

    Attributes:
        on: Any row of the batch is tuned.
        rows: (rows,), bool: which; None means all, where `on`.
    """

    def __init__(self, layer: Any, base: Any) -> None:
        from peft.tuners.lora.layer import Linear

        self.on = True
        self.rows: torch.Tensor | None = None
        self._layer, self._base, self._tuned = layer, base, layer.forward
        self._adds = type(layer) is Linear and not layer.lora_variant
        layer.forward = self

    def __call__(self, x: "torch.Tensor", *args: Any, **kwargs: Any) -> Any:
        import torch

        if not self.on:
            return self._base(x, *args, **kwargs)
        if self.rows is None:
            return self._tuned(x, *args, **kwargs)
        result = self._base(x, *args, **kwargs)
        if self._adds:
            # LoRA adds to what the base says: the large product is needed once for both sides.
            result[self.rows] += self._added(x[self.rows])
            return result
        rows = self.rows.view(-1, *[1] * (result.dim() - 1))
        return torch.where(rows, self._tuned(x, *args, **kwargs), result)

    def _added(self, x: "torch.Tensor") -> Any:
        layer, added = self._layer, 0
        for name in layer.active_adapters:
            first, second = layer.lora_A[name], layer.lora_B[name]
            added = added + second(first(x.to(first.weight.dtype))) * layer.scaling[name]
        return added


def require_switchable(adapter: str, model: str) -> None:
    """Raises if the base alone cannot be had with the adapter loaded.

    Raises:
        MissingInputError: The adapter is not there.
        CheckpointError: It belongs to another model, changes no layers, or changed the base's.
    """
    from peft import PeftConfig

    folder = resolve(adapter)
    if not (folder / "adapter_model.safetensors").is_file():
        raise MissingInputError(
            f"adapter {shown(folder)} does not exist or is not finished; "
            "run: python scripts/train.py with its recipe"
        )
    provenance.require_same_base(folder, resolve(model))
    config = PeftConfig.from_pretrained(folder)
    begun = str(getattr(config, "init_lora_weights", True)).lower()
    if config.is_prompt_learning or config.is_adaption_prompt:
        problem = f"is of the kind {config.peft_type.value}, which changes no layers"
        cure = "use a LoRA adapter (scripts/train.py with lora_sft.yaml)"
    elif begun.startswith(_SOLD_OUT):
        problem = f"was begun as {begun}, which changes the base's own weights"
        cure = "merge it (scripts/export.py) and serve the merged model"
    elif getattr(config, "alora_invocation_tokens", None):
        problem, cure = "is an activated LoRA, which is on for a part of a text", "use plain LoRA"
    else:
        return
    raise CheckpointError(f"adapter {shown(folder)} {problem}: it cannot be served; {cure}")
