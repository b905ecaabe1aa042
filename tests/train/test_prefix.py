"""Prefix tuning: begun with PEFT, trained by LLaMA-Factory, the same in any batch."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medqa.errors import ConfigError, MissingInputError, TargetError
from medqa.provenance import digest, require_same_base
from medqa.train import prefix
from tests.project import Project

RECIPE = "configs/tiny/prefix_sft.yaml"
BASE, BEGUN = "models/tiny", "saves/tiny/prefix/begin"
TEXTS = [[7, 8, 9, 10, 11], [12, 13], [14, 15, 16, 17, 18, 19, 20, 21]]


@pytest.fixture(scope="module")
def imported(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medqa.model.importer import import_model

    project = tmp_path_factory.mktemp("project")
    golden = root / "tests/fixtures/golden"
    import_model(golden, project / BASE, dtype="float32", origin="golden")
    return project


@pytest.fixture
def project(imported: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(imported / BASE, tmp_path / BASE)
    shutil.copytree(root / "configs/tiny", tmp_path / "configs/tiny")
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def base(project: Path) -> Any:
    from transformers import GlmForCausalLM

    return GlmForCausalLM.from_pretrained(project / BASE)


@pytest.fixture
def loaded(project: Path, base: Any) -> Any:
    """What LLaMA-Factory then trains, by the call of its model/adapter.py."""
    from peft import PeftModel

    prefix.begin(RECIPE, virtual_tokens=6)
    with prefix.trainable():
        return PeftModel.from_pretrained(base, BEGUN, is_trainable=True)


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_it_is_begun_once_and_from_the_recipes_seed(project: Path) -> None:
    begun = project / BEGUN
    assert "8 virtual tokens, " in prefix.begin(RECIPE, virtual_tokens=8)
    first = weights(begun)
    assert require_same_base(begun, project / BASE)
    assert prefix.begin(RECIPE, virtual_tokens=8) == f"up to date: {BEGUN}"
    for seed, tokens in ((1, 8), (42, 9)):
        with pytest.raises(TargetError, match="--overwrite"):
            prefix.begin(RECIPE, [f"seed={seed}"], virtual_tokens=tokens)
    prefix.begin(RECIPE, ["seed=1"], virtual_tokens=8, overwrite=True)
    assert weights(begun) != first
    prefix.begin(RECIPE, virtual_tokens=8, overwrite=True)
    assert weights(begun) == first


def test_its_shape_is_that_of_the_groups_not_of_the_heads(project: Path) -> None:
    from safetensors.torch import load_file

    prefix.begin(RECIPE, virtual_tokens=8)
    config = json.loads((project / BASE / "config.json").read_text(encoding="utf-8"))
    groups, width = config["num_key_value_heads"], config["head_dim"]
    assert groups < config["num_attention_heads"]
    (numbers,) = load_file(project / BEGUN / "adapter_model.safetensors").values()
    assert numbers.shape == (8, 2 * config["num_hidden_layers"] * groups * width)
    assert abs(numbers.std() - 1) < 0.1
    text = "".join(p.read_text(encoding="utf-8") for p in (project / BEGUN).glob("*.*s*n"))
    assert str(project) not in text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["disable_gradient_checkpointing=false"], "needs True, found False"),
        (["finetuning_type=full", "stage=dpo"], "needs 'sft', found 'dpo'.*needs 'lora'"),
        (["adapter_name_or_path="], "missing key 'adapter_name_or_path'"),
        (["adapter_name_or_path=a,b"], "expected one folder"),
        (["adapter_name_or_path=saves/tiny"], "would replace saves/tiny/prefix/sft"),
        (["adapter_name_or_path=models"], "would replace models/tiny"),
        (["adapter_name_or_path=saves/tiny/prefix/sft"], "would replace saves/tiny/prefix/sft"),
        (["virtual_tokens=3"], "unknown key 'virtual_tokens'"),
    ],
)
def test_what_cannot_be_with_a_prefix(project: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        prefix.begin(RECIPE, overrides, virtual_tokens=8, overwrite=True)
    assert (project / BASE / "config.json").is_file()


def test_a_length_of_nothing_and_a_base_that_is_not_there(project: Path) -> None:
    with pytest.raises(ConfigError, match="expected 1 or more, found 0"):
        prefix.begin(RECIPE, virtual_tokens=0)
    with pytest.raises(MissingInputError, match="models/none, found no config"):
        prefix.begin(RECIPE, ["model_name_or_path=models/none"], virtual_tokens=8)


def test_peft_still_needs_us(project: Path, base: Any) -> None:
    """Once one of these passes, `prefix.trainable` can go, or that part of it."""
    import torch
    from peft import PeftModel

    prefix.begin(RECIPE, virtual_tokens=6)
    with pytest.raises(ValueError, match="Cannot set a prompt learning adapter to trainable"):
        PeftModel.from_pretrained(base, BEGUN, is_trainable=True)
    model = PeftModel.from_pretrained(base, BEGUN)
    ids, mask, positions = packed(TEXTS, torch.float32)
    with pytest.raises(RuntimeError, match="same number of dimensions"):
        model(input_ids=ids, attention_mask=mask, position_ids=positions)


def test_nothing_but_the_prefix_is_trained_and_in_float32(project: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import GlmForCausalLM

    prefix.begin(RECIPE, virtual_tokens=6)
    half = GlmForCausalLM.from_pretrained(project / BASE, dtype="bfloat16")
    with prefix.trainable():
        model = PeftModel.from_pretrained(half, BEGUN, is_trainable=True)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert list(trained) == ["prompt_encoder.default.embedding.weight"]
    (weight,) = trained.values()
    assert weight.dtype == torch.float32
    assert model.training
    before = weight.detach().clone()
    model(input_ids=torch.tensor(TEXTS[:1]), labels=torch.tensor(TEXTS[:1])).loss.backward()
    torch.optim.SGD([weight], lr=1.0).step()
    assert (weight != before).float().mean() > 0.99, "nearly all of it has a say"
    assert weight.dtype == torch.float32
    assert all(p.grad is None for name, p in model.named_parameters() if name not in trained)


def test_other_adapters_are_loaded_as_ever(project: Path, base: Any) -> None:
    from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
    from transformers import GlmForCausalLM

    projected = PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=2, prefix_projection=True
    )
    get_peft_model(base, projected).save_pretrained("projected", save_embedding_layers=False)
    upstream = PeftModel.__dict__["from_pretrained"]
    with (
        prefix.trainable(),
        pytest.raises(ValueError, match="Cannot set a prompt learning adapter to trainable"),
    ):
        PeftModel.from_pretrained(base, "projected", is_trainable=True)
    assert PeftModel.__dict__["from_pretrained"] is upstream, "and nothing is left behind"

    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    get_peft_model(GlmForCausalLM.from_pretrained(BASE), lora).save_pretrained(
        "lora", save_embedding_layers=False
    )
    with prefix.trainable():
        model = PeftModel.from_pretrained(
            GlmForCausalLM.from_pretrained(BASE), "lora", is_trainable=True
        )
    assert {n.split(".")[-3] for n, p in model.named_parameters() if p.requires_grad} == {
        "lora_A",
        "lora_B",
    }


def test_flash_attention_is_refused(project: Path, base: Any) -> None:
    """It would take no mask that keeps packed pairs apart and has a prefix."""
    from peft import PeftModel

    prefix.begin(RECIPE, virtual_tokens=6)
    base.config._attn_implementation_internal = "flash_attention_2"
    with prefix.trainable(), pytest.raises(ValueError, match="flash_attn: sdpa alone"):
        PeftModel.from_pretrained(base, BEGUN, is_trainable=True)


def losses(model: Any, **inputs: Any) -> Any:
    """Returns the loss of every next token, (rows, length - 1)."""
    import torch

    with torch.inference_mode():
        logits = model(**inputs).logits[:, :-1].transpose(1, 2)
    return torch.nn.functional.cross_entropy(logits, inputs["input_ids"][:, 1:], reduction="none")


def alone(model: Any, text: Sequence[int]) -> Any:
    import torch

    return losses(model, input_ids=torch.tensor([text]))[0]


def packed(texts: Sequence[list[int]], dtype: Any) -> tuple[Any, Any, Any]:
    """Returns ids, mask and positions as LLaMA-Factory's neat packing has them."""
    import torch
    from llamafactory.data.collator import prepare_4d_attention_mask

    ids = torch.tensor([[token for text in texts for token in text]])
    which = torch.tensor([[n for n, text in enumerate(texts, 1) for _ in text]])
    positions = torch.tensor([[place for text in texts for place in range(len(text))]])
    return ids, prepare_4d_attention_mask(which, dtype), positions


def test_rows_of_unequal_lengths_lose_what_each_loses_alone(loaded: Any) -> None:
    """Training pads on the right."""
    import torch

    longest = max(map(len, TEXTS))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in TEXTS])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in TEXTS])
    together = losses(loaded, input_ids=ids, attention_mask=mask)
    for row, text in zip(together, TEXTS, strict=True):
        assert torch.allclose(row[: len(text) - 1], alone(loaded, text), atol=1e-5)


def test_packed_rows_lose_what_each_loses_alone(loaded: Any) -> None:
    import torch

    def lost(texts: list[list[int]]) -> list[Any]:
        ids, mask, positions = packed(texts, torch.float32)
        with prefix.trainable():
            row = losses(loaded, input_ids=ids, attention_mask=mask, position_ids=positions)[0]
        ends = [sum(map(len, texts[: n + 1])) for n in range(len(texts))]
        return [row[e - len(t) : e - 1] for e, t in zip(ends, texts, strict=True)]

    usual = lost(TEXTS)
    for text, found in zip(TEXTS, usual, strict=True):
        assert torch.allclose(found, alone(loaded, text), atol=1e-5)
    other = lost([[3] * 9, TEXTS[1], [4] * 3])
    assert torch.allclose(other[1], usual[1], atol=1e-5), "whoever its neighbours are"
    with loaded.disable_adapter():
        assert not torch.allclose(alone(loaded, TEXTS[2]), usual[2], atol=0.1)


@pytest.fixture
def demonstrated(demo_project: Project, demo: str, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("MEDQA_ROOT", str(demo_project.root))
    return demo_project


def lost(project: Project, pairs: list[tuple[str, str]]) -> tuple[float, float]:
    """Returns the mean loss of base and prefix, nats for each answer's token, row by row."""
    from medqa.compare.generate import SIDES, Pair

    pair = Pair(BASE, "saves/tiny/prefix/sft")
    found = []
    for side in SIDES:
        batches = pair.losses(side, pairs, cutoff_len=256, batch_size=16)
        rows = [loss / tokens for batch in batches for _, loss, tokens in batch]
        found.append(sum(rows) / len(rows))
    return found[0], found[1]


@pytest.mark.slow
def test_the_recipe_is_trained(demonstrated: Project) -> None:
    """By the commands at its head; fewer epochs, and rows one by one where it is evaluated."""
    project = demonstrated
    head = (project.root / RECIPE).read_text(encoding="utf-8").partition("\n\n")[0]
    assert f"python scripts/begin_prefix.py {RECIPE} --virtual-tokens 32" in head
    few = (
        "num_train_epochs=3",
        "per_device_train_batch_size=16",
        "packing=false",
        "neat_packing=false",
        "per_device_eval_batch_size=1",
    )

    printed = project.script("begin_prefix", RECIPE, "--virtual-tokens", "32", "--overwrite")
    assert printed == f"{BEGUN}: 32 virtual tokens, 16,384 numbers, untrained\n"
    folders = [project.root / BASE, project.root / BEGUN]
    files = [file for folder in folders for file in sorted(folder.iterdir())]
    untouched = digest(*files)
    project.script("train", RECIPE, *few)
    assert digest(*files) == untouched

    state = project.json("saves/tiny/prefix/sft/trainer_state.json")["log_history"]
    losses = [entry["loss"] for entry in state if "loss" in entry]
    assert losses[-1] < 0.6 * losses[0]
    said = project.json("saves/tiny/prefix/sft/all_results.json")["eval_loss"]
    rows = project.lines("data/processed/sample/val.jsonl")
    base, tuned = lost(project, [(row["instruction"], row["output"]) for row in rows])
    assert tuned < 0.6 * base
    assert tuned == pytest.approx(said, rel=1e-3), "as LLaMA-Factory measured it while training"
