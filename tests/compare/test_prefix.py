"""A prefix in a batch of any lengths: PEFT's own answers and losses, one by one."""

from pathlib import Path
from typing import Any

import pytest

from medqa.compare.generate import SIDES, Pair, Side

from .conftest import ANSWERS, PLAN, QUESTIONS
from .test_generate import answered, generated, logits

pytestmark = pytest.mark.slow

BASE, ADAPTER = PLAN["model_name_or_path"], "saves/tiny/prefix/sft"
PAIRS = list(zip(QUESTIONS, ANSWERS, strict=True))


@pytest.fixture
def plain_base(project: Path) -> Any:
    from transformers import GlmForCausalLM

    return GlmForCausalLM.from_pretrained(project / BASE).eval()


@pytest.fixture
def peft_model(project: Path, plain_base: Any) -> Any:
    """PEFT's own model with a random prefix, which is saved to ADAPTER as after a training."""
    import torch
    from peft import PrefixTuningConfig, get_peft_model

    torch.manual_seed(0)
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    model = get_peft_model(plain_base, config)
    model.save_pretrained(project / ADAPTER, save_embedding_layers=False)
    return model.eval()


@pytest.fixture
def pair(project: Path, peft_model: Any) -> Pair:
    return Pair(BASE, ADAPTER)


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_both_answer_as_generate_does_one_by_one(
    pair: Pair, plain_base: Any, peft_model: Any, size: int
) -> None:
    base = [generated(plain_base, pair, question) for question in QUESTIONS]
    tuned = [generated(peft_model, pair, question) for question in QUESTIONS]
    assert answered(pair, "base", size, QUESTIONS) == base
    assert answered(pair, "tuned", size, QUESTIONS) == tuned
    assert answered(pair, "base", size, QUESTIONS) == base
    assert all(b.text != t.text for b, t in zip(base, tuned, strict=True))


def test_logits_are_pefts_and_the_bases(pair: Pair, plain_base: Any, peft_model: Any) -> None:
    import torch

    bare, beside = logits(plain_base, pair), logits(peft_model, pair)
    for _ in range(2):
        with pair.as_side("tuned") as model:
            assert (logits(model, pair) - beside).abs().max() < 1e-5
        with pair.as_side("base") as model:
            assert torch.equal(logits(model, pair), bare)
    assert (beside - bare).abs().max() > 0.1


@pytest.mark.parametrize("side", SIDES)
def test_losses_are_those_of_one_by_one(
    pair: Pair, plain_base: Any, peft_model: Any, side: Side
) -> None:
    import torch

    found = {
        n: loss
        for batch in pair.losses(side, PAIRS, cutoff_len=256, batch_size=4)
        for n, loss, _ in batch
    }
    model = {"base": plain_base, "tuned": peft_model}[side]
    for n, (question, answer) in enumerate(PAIRS):
        asked = pair.prompt(question)
        said = [*pair.ids("\n"), *pair.ids(answer), 2]
        labels = torch.tensor([[-100] * len(asked) + said])
        loss = model(input_ids=torch.tensor([asked + said]), labels=labels).loss
        assert found[n] == pytest.approx(loss.item() * len(said), rel=1e-5)


def test_transformers_generates_with_it_in_batches_too(pair: Pair, peft_model: Any) -> None:
    """As lm-eval's own code may."""
    import torch

    from medqa.compare.decode import padded

    prompts = [pair.prompt(question) for question in QUESTIONS]
    ids, mask = padded(prompts, side="left")
    with pair.as_side("tuned") as model:
        out = model.generate(
            input_ids=ids,
            attention_mask=mask.long(),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=-1,
            pad_token_id=0,
        )[:, ids.shape[1] :]
        alone = [
            model.generate(
                input_ids=torch.tensor([p]),
                attention_mask=torch.ones(1, len(p)).long(),
                max_new_tokens=6,
                do_sample=False,
                eos_token_id=-1,
                pad_token_id=0,
            )[0, len(p) :]
            for p in prompts
        ]
    assert torch.equal(out, torch.stack(alone))
