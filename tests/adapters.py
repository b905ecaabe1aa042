"""A golden base with an adapter that changes its answers, as two rooms need it."""

from pathlib import Path

BASE, ADAPTER = "models/tiny", "saves/tiny/lora/sft"


def write_golden_pair(root: Path, project: Path, *, std: float) -> None:
    """Imports the golden checkpoint of `root` to BASE and saves a random LoRA adapter to ADAPTER.

    Args:
        root: The checkout.
        project: Where to.
        std: Standard deviation of the adapter's B weights, which are zero before a training.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import GlmForCausalLM

    from medqa.model.importer import import_model

    base = project / BASE
    import_model(root / "tests/fixtures/golden", base, dtype="float32", origin="golden")
    torch.manual_seed(0)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"]
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=names, task_type="CAUSAL_LM")
    model = get_peft_model(GlmForCausalLM.from_pretrained(base), lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std)
    model.peft_config["default"].base_model_name_or_path = BASE
    model.save_pretrained(project / ADAPTER, save_embedding_layers=False)
