"""A project with an imported golden base and a random adapter whose training has finished."""

import json
import shutil
from pathlib import Path

import pytest

from medqa import provenance


@pytest.fixture(scope="session")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; tests work on copies."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import GlmForCausalLM

    from medqa.model.importer import import_model

    project = tmp_path_factory.mktemp("project")
    base, adapter = project / "models/tiny", project / "saves/tiny/lora/sft"
    import_model(root / "tests/fixtures/golden", base, dtype="float32", origin="golden")
    torch.manual_seed(0)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=names, task_type="CAUSAL_LM")
    model = get_peft_model(GlmForCausalLM.from_pretrained(base), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.peft_config["default"].base_model_name_or_path = "models/tiny"
    model.save_pretrained(adapter, save_embedding_layers=False)
    fingerprint = json.loads((base / "medqa_import.json").read_text(encoding="utf-8"))
    (adapter / "all_results.json").write_text("{}", encoding="utf-8")
    provenance.write(
        adapter / "medqa_run.json",
        step="train",
        inputs={"models/tiny": fingerprint["fingerprint"]},
        config={},
    )
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    return tmp_path
