"""The tiny ChatGLM3: the original layout, the same from the same seed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor

from medqa import config
from medqa.errors import MissingInputError, TargetError
from medqa.model import tiny

QUICK = ["steps=3", "batch_size=4", "num_layers=1"]


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/sample").symlink_to(root / "data/sample")
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    return tmp_path


def _config(root: Path, *overrides: str) -> tiny.TinyConfig:
    path = root / "configs/tiny/make_tiny.yaml"
    return config.load(path, [*QUICK, *overrides], tiny.TinyConfig)


def test_it_has_the_original_layout(root: Path, project: Path, shared: Path) -> None:
    assert "parameters" in tiny.make(_config(root))
    made = project / "models/tiny-original"
    ours = json.loads((made / "config.json").read_text(encoding="utf-8"))
    original = json.loads((shared / "chatglm3/golden/config.json").read_text(encoding="utf-8"))
    assert set(ours) <= set(original)
    assert ours["model_type"] == original["model_type"] == "chatglm"
    names = {name.replace("layers.1.", "layers.0.") for name in
             load_file(shared / "chatglm3/golden/model.safetensors")}  # fmt: skip
    tensors = load_file(made / "model.safetensors")
    assert set(tensors) == {name for name in names if "inv_freq" not in name}
    fused = tensors["transformer.encoder.layers.0.self_attention.query_key_value.weight"]
    assert fused.shape == (128 + 2 * 2 * 32, 128)


def test_the_same_seed_gives_the_same_bytes(root: Path, project: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        tiny.make(_config(root, f"output_dir=models/{name}", f"seed={seed}"))
    weights = [(project / f"models/{n}/model.safetensors").read_bytes() for n in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_it_is_made_once(root: Path, project: Path) -> None:
    tiny.make(_config(root))
    assert tiny.make(_config(root)).startswith("up to date")
    with pytest.raises(TargetError, match="--overwrite"):
        tiny.make(_config(root, "seed=9"))
    assert "parameters" in tiny.make(_config(root, "seed=9"), overwrite=True)


def test_a_missing_text_is_named(root: Path, project: Path) -> None:
    with pytest.raises(MissingInputError, match=r"data/none\.txt does not exist; run: python"):
        tiny.make(_config(root, "neutral=data/none.txt"))


def test_the_tokenizer_has_chatglm3s_settings() -> None:
    model = tiny.train_tokenizer(iter(["布洛芬有什么禁忌？", "a  b 123"] * 50), 300)
    pieces = SentencePieceProcessor(model_proto=model)
    assert pieces.decode(pieces.encode("a  b\n𠮷123")) == "a  b\n𠮷123"
    assert pieces.encode("12", out_type=str) == ["▁", "1", "2"]
    assert [pieces.id_to_piece(n) for n in (0, 1, 2, 3)] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert tiny.control_ids(pieces)["[gMASK]"] == pieces.vocab_size() + 1


def test_batches_pad_on_the_right_and_learn_nothing_there(root: Path) -> None:
    texts = [[5, 6, 7], [8], [9, 10]]
    (batch,) = tiny._batches(texts, _config(root, "steps=1", "batch_size=3"))
    assert batch["input_ids"].shape == (3, 3)
    padding = batch["input_ids"] == 0
    assert torch.equal(batch["attention_mask"] == 0, padding)
    assert torch.equal(batch["labels"] == -100, padding)
    assert (batch["input_ids"][:, 0] != 0).all()
