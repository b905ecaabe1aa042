"""The quantised checkpoint: loaded again by plain transformers, measured, refused when broken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medqa.errors import CheckFailedError, ConfigError, TargetError
from medqa.export import quantize

# What a user of the folders writes; the first is not quantised.
ALONE = """
import json
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

said = []
for folder in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    chat = [{"role": "user", "content": "头痛怎么办？"}]
    ids = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    with torch.inference_mode():
        logits = model(ids).logits[0].float()
    wanted = logits if not said else wanted
    distance = (logits - wanted).square().mean().sqrt() / wanted.std()
    said.append([str(model.model.layers[0].mlp.down_proj.weight.dtype), distance.item()])
print(json.dumps(said))
"""


@pytest.fixture
def source(project: Path) -> Path:
    """The golden tokenizer on a model of widths that bitsandbytes' CPU kernels take.

    Its output layer is its embedding, so that it is as sure of its answers as a trained one.
    """
    from transformers import GlmConfig, GlmForCausalLM

    folder = project / "models/tiny"
    config = GlmConfig.from_pretrained(
        folder, hidden_size=128, intermediate_size=384, head_dim=32, dtype="float32"
    )
    torch.manual_seed(0)
    model = GlmForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    model.save_pretrained(folder)
    (folder / "medqa_import.json").unlink()
    return folder


@pytest.mark.slow
def test_they_load_with_plain_transformers_and_answer_as_the_model(
    source: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "README.md").write_text("---\nlicense: other\n---\n# 模型卡\n", encoding="utf-8")
    allowed: dict[quantize.Bits, float] = {8: 0.05, 4: 0.3}
    folders = [source]
    for bits, most in allowed.items():
        made = quantize.quantize(source, project / f"models/made-{bits}", bits)
        folders.append(made)
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith(f"models/made-{bits}: logits differ by ")
        record = json.loads((made / quantize.RECORD).read_text(encoding="utf-8"))
        assert 0 < record["cost"]["difference"] < most
        assert record["cost"]["positions"] > 200
        assert set(record["sha256"]) == {f.name for f in made.iterdir()} - {quantize.RECORD}
        saved = (made / "model.safetensors").stat().st_size
        assert saved < 0.7 * (source / "model.safetensors").stat().st_size
        card = (made / "README.md").read_text(encoding="utf-8")
        assert card.startswith(f"---\nlicense: other\n---\n\n> {bits} 位量化版")
        assert card.endswith("All figures below are of the model before.\n\n# 模型卡\n")

    command = [sys.executable, "-c", ALONE, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (_, nothing), (of_8, by_8), (of_4, by_4) = json.loads(done.stdout)
    assert (of_8, of_4) == ("torch.int8", "torch.uint8")
    assert nothing == 0 < by_8 < allowed[8]
    assert by_8 < by_4 < allowed[4]

    quantize.quantize(source, made, 4)
    assert capsys.readouterr().out == "up to date: models/made-4\n"
    with pytest.raises(TargetError, match="--overwrite"):
        quantize.quantize(source, made, 8)


@pytest.mark.slow
def test_a_broken_one_is_not_kept(
    source: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scales are lost between saving and loading."""
    load = quantize._load

    def damaged(folder: Path, device: str, **options: object) -> torch.nn.Module:
        if folder != source and not options:
            from safetensors.torch import load_file, save_file

            weights = load_file(folder / "model.safetensors")
            for name in weights:
                if name.endswith(".SCB"):
                    weights[name] = weights[name].flip(0) * 3
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return load(folder, device, **options)

    monkeypatch.setattr(quantize, "_load", damaged)
    monkeypatch.setattr(quantize, "ANSWER_TOKENS", 4)
    with pytest.raises(CheckFailedError, match=r"does not answer as the model: .* nothing was"):
        quantize.quantize(source, project / "models/made", 8)
    assert [path.name for path in (project / "models").iterdir()] == ["tiny"]


def test_without_bitsandbytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"bitsandbytes is not installed; run: pip install '\.\[qu"
    ):
        quantize.quantize(project / "models/tiny", project / "models/made", 4)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(40, 300, generator=torch.Generator().manual_seed(0))


def test_the_cost_of_nothing(logits: torch.Tensor) -> None:
    found = quantize.cost(logits, logits.clone())
    assert (found.difference, found.agreement, found.positions) == (0, 1, 40)
    assert found.divergence == pytest.approx(0, abs=1e-6)


def test_the_cost_in_its_units(logits: torch.Tensor) -> None:
    """Logits that are all higher by the same say the same."""
    found = quantize.cost(2 * logits, 2 * logits + 0.2)
    assert found.difference == pytest.approx(0.2 / (2 * logits.std().item()), rel=1e-4)
    assert found.agreement == 1
    assert found.divergence == pytest.approx(0, abs=1e-6)


def test_the_divergence_is_that_of_torch(logits: torch.Tensor) -> None:
    other = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    wanted = torch.nn.functional.kl_div(
        other.log_softmax(-1), logits.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert quantize.cost(logits, other).divergence == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("bits", "difference", "agreement", "sound"),
    [
        (8, 0.02, 0.99, True),
        (8, 0.2, 0.99, False),
        (8, 0.02, 0.8, False),
        (4, 0.2, 0.9, True),
        (4, 0.6, 0.9, False),
        (4, 0.2, 0.6, False),
        (4, float("nan"), 0.9, False),
    ],
)
def test_what_is_refused(
    bits: quantize.Bits, difference: float, agreement: float, sound: bool
) -> None:
    found = quantize.Cost(difference, agreement, 0.0, 500)
    if sound:
        quantize.require_sound(found, bits)
        return
    with pytest.raises(CheckFailedError, match="nothing was written"):
        quantize.require_sound(found, bits)


def test_not_finite(logits: torch.Tensor) -> None:
    broken = logits.clone()
    broken[3, 4] = torch.nan
    with pytest.raises(CheckFailedError, match="not finite"):
        quantize.cost(logits, broken)
