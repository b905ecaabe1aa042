"""Packed training is unpacked training: what a row learns does not depend on its neighbours.

LLaMA-Factory's own encoding and collator, transformers' GLM with SDPA, float32 on a CPU.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.train.batches import Encoded, encode, write_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # importing LLaMA-Factory warns
]

VALUES: dict[str, Any] = {
    "model_name_or_path": "models/tiny",
    "stage": "sft",
    "template": "chatglm3",
    "dataset": "qa",
    "dataset_dir": "data",
    "cutoff_len": 256,
    "split_special_tokens": True,
}
NEAT = {"packing": True, "neat_packing": True}
LEAKING = {"packing": True, "neat_packing": False}
SAME = 1e-4
KEPT = 6  # rows that both data sets have


@pytest.fixture(scope="module")
def model(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The golden GLM in float32; the folder it is in is its name."""
    from transformers import GlmForCausalLM

    from medqa.model.importer import import_model

    target = tmp_path_factory.mktemp("models") / "golden"
    import_model(root / "tests/fixtures/golden", target, dtype="float32", origin="golden")
    return GlmForCausalLM.from_pretrained(target, attn_implementation="sdpa").eval()


@pytest.fixture
def project(model: Any, tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tiny").symlink_to(model.name_or_path)
    return tmp_path


def made_up(count: int, seed: int) -> list[dict[str, str]]:
    chance = random.Random(seed)
    words = ["饮酒", "以后", "服用", "西地那非", "吗", "血压", "每日", "aspirin", "，", "。"]

    def text(shortest: int, longest: int) -> str:
        return "".join(chance.choices(words, k=chance.randint(shortest, longest)))

    return [{"instruction": text(2, 6), "input": "", "output": text(2, 14)} for _ in range(count)]


def token_losses(model: Any, batch: Mapping[str, Any]) -> Any:
    """Returns the loss of every token, 0 where none is asked for; shape as the labels, less one."""
    from torch.nn.functional import cross_entropy

    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    return cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)


def losses(model: Any, encoded: Encoded, *, run_on: bool = False) -> dict[str, float]:
    """Returns the mean loss of every row by its text, computed in batches of two.

    Args:
        model: The model.
        encoded: Rows or packs.
        run_on: Count positions through a pack instead of from 0 in every row.
    """
    import torch

    found: dict[str, float] = {}
    for start in range(0, len(encoded.rows), 2):
        features = [encoded.rows[n] for n in range(start, min(start + 2, len(encoded.rows)))]
        batch = encoded.batch(features)
        if run_on:
            batch["position_ids"] = torch.arange(batch["input_ids"].shape[1])[None]
        with torch.no_grad():
            each = token_losses(model, batch)
        for row, feature in zip(each, features, strict=True):
            for first, end in spans(feature):
                asked = sum(label != -100 for label in feature["labels"][first:end])
                if asked:  # not padding
                    text = encoded.tokenizer.decode(feature["input_ids"][first:end])
                    # The loss of a token stands where the token before it is.
                    found[text] = (row[max(first - 1, 0) : end - 1].sum() / asked).item()
    return found


def spans(feature: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Returns where rows begin and end in a pack: positions start again at 0."""
    length = len(feature["input_ids"])
    positions = feature.get("position_ids") or range(length)
    starts = [n for n, position in enumerate(positions) if position == 0]
    return list(zip(starts, [*starts[1:], length], strict=True))


def furthest(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Returns the largest difference of the losses that both have."""
    return max(abs(one[text] - other[text]) for text in one.keys() & other.keys())


def test_packed_rows_have_the_losses_that_they_have_alone(
    model: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(project, made_up(24, seed=0))
    packs = encode(project, monkeypatch, VALUES | NEAT)
    assert all(len(row["packing_params"]["sequence_boundaries"]) > 3 for row in packs.rows)
    alone = losses(model, encode(project, monkeypatch, VALUES))
    packed = losses(model, packs)
    assert len(packed) == 24
    assert packed.keys() == alone.keys()
    assert furthest(packed, alone) < SAME


def test_other_neighbours_do_not_change_a_loss_and_plain_packing_lets_them(
    model: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = made_up(KEPT, seed=0)
    found = {}
    for seed in (1, 2):
        write_rows(project, ours + made_up(18, seed=seed))
        for name, packing in (("neat", NEAT), ("plain", LEAKING)):
            found[name, seed] = losses(model, encode(project, monkeypatch, VALUES | packing))
    assert len(found["neat", 1].keys() & found["neat", 2].keys()) == KEPT
    assert furthest(found["neat", 1], found["neat", 2]) < SAME
    # What this test would see if rows saw each other.
    assert furthest(found["plain", 1], found["plain", 2]) > 100 * SAME


def test_positions_that_run_on_through_a_pack_give_the_same_losses(
    model: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotary positions are relative, so a row may begin anywhere."""
    write_rows(project, made_up(24, seed=0))
    packs = encode(project, monkeypatch, VALUES | NEAT)
    assert all(len(spans(row)) > 3 for row in packs.rows)
    assert furthest(losses(model, packs), losses(model, packs, run_on=True)) < SAME


def test_the_gradient_of_packs_is_the_gradient_of_their_rows(
    model: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def gradient(encoded: Encoded) -> Any:
        model.zero_grad()
        for start in range(0, len(encoded.rows), 4):
            end = min(start + 4, len(encoded.rows))
            batch = encoded.batch([encoded.rows[n] for n in range(start, end)])
            token_losses(model, batch).sum().backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    write_rows(project, made_up(24, seed=0))
    alone = gradient(encode(project, monkeypatch, VALUES))
    packed = gradient(encode(project, monkeypatch, VALUES | NEAT))
    leaking = gradient(encode(project, monkeypatch, VALUES | LEAKING))
    model.zero_grad()
    assert (packed - alone).norm() < SAME * alone.norm()
    assert (leaking - alone).norm() > 100 * SAME * alone.norm()
