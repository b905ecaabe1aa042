"""Each remedy works, is taken back, and is still needed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medqa import remedies
from medqa.export.modelfile import STOPS, TEMPLATE

pytestmark = pytest.mark.filterwarnings("ignore")  # importing LLaMA-Factory warns


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medqa.model.importer import import_model

    target = tmp_path_factory.mktemp("models") / "tiny"
    import_model(root / "tests/fixtures/golden", target, dtype="float32", origin="golden")
    return target


def test_modelfile(folder: Path) -> None:
    from llamafactory.data.template import TEMPLATES
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = TEMPLATES["chatglm3"]
    with pytest.raises(ValueError, match="Dict is not supported"):
        template.get_ollama_modelfile(tokenizer)
        pytest.fail("LLaMA-Factory writes this Modelfile itself now: delete the remedy")
    with remedies.applied():
        text = template.get_ollama_modelfile(tokenizer)
    assert f'TEMPLATE """{TEMPLATE}"""' in text
    for stop in STOPS:
        assert f'PARAMETER stop "{stop}"\n' in text
    with pytest.raises(ValueError, match="Dict is not supported"):
        template.get_ollama_modelfile(tokenizer)


def test_the_space_between_text_slots_is_still_left_out(folder: Path) -> None:
    from llamafactory.data.template import TEMPLATES, Template
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    slots = TEMPLATES["chatglm3"].format_assistant.apply()
    upstream = Template._convert_slots_to_ollama(slots, tokenizer, ".Content")
    assert upstream == "\n{{ .Content }}", "upstream writes the space now: delete that part"


def test_the_chat_template_needs_no_remedy(folder: Path) -> None:
    """LLaMA-Factory cannot make one of its chatglm3 slots either, and leaves the imported one."""
    from llamafactory.data.template import TEMPLATES
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = tokenizer.chat_template
    TEMPLATES["chatglm3"].fix_jinja_template(tokenizer)
    assert tokenizer.chat_template == before
    assert before


ON = SimpleNamespace(enable_liger_kernel=True)


def test_liger_still_leaves_glm_as_it_was(folder: Path) -> None:
    from llamafactory.model.model_utils.liger_kernel import apply_liger_kernel
    from transformers import GlmConfig, GlmForCausalLM

    before = GlmForCausalLM.forward
    apply_liger_kernel(GlmConfig.from_pretrained(folder), ON, True, False)
    assert GlmForCausalLM.forward is before, "upstream patches GLM now: delete the remedy"


def test_liger_reaches_glm_and_trains_alike(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel needs a GPU; here its loss is written out in torch, all around it is the real."""
    import liger_kernel.transformers.model.glm4 as liger
    import torch
    from llamafactory.model import loader
    from torch.nn.functional import cross_entropy
    from transformers import GlmConfig, GlmForCausalLM

    calls = []

    def written_out(hidden_states: Any, lm_head_weight: Any, labels: Any, **rest: Any) -> Any:
        calls.append(rest["num_items_in_batch"])
        logits = hidden_states[:, :-1] @ lm_head_weight.T
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        return loss / rest["num_items_in_batch"]

    monkeypatch.setattr(liger, "LigerForCausalLMLoss", written_out)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    model = GlmForCausalLM.from_pretrained(folder).train()
    ids = torch.randint(3, 480, (2, 12), generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(torch.arange(12) < 4, -100)
    batch = {"input_ids": ids, "labels": labels, "num_items_in_batch": torch.tensor(16)}

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        weight = model.model.layers[0].self_attn.q_proj.weight
        assert weight.grad is not None
        return loss.detach(), weight.grad.clone()

    plain, plain_grad = step()
    assert not calls
    upstream = GlmForCausalLM.forward
    with remedies.applied():
        loader.apply_liger_kernel(GlmConfig.from_pretrained(folder), ON, True, False)
        fused, fused_grad = step()
        assert len(calls) == 1
        logits = model.eval()(ids).logits
        assert logits.shape == (2, 12, 512)
    assert GlmForCausalLM.forward is upstream
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(fused_grad, plain_grad)


@pytest.mark.parametrize(
    ("enabled", "trains", "needs_logits", "accelerator"),
    [
        (False, True, False, True),
        (True, False, False, True),
        (True, True, True, True),
        (True, True, False, False),
    ],
)
def test_liger_only_where_it_was_asked_for_and_can_run(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    enabled: bool,
    trains: bool,
    needs_logits: bool,
    accelerator: bool,
) -> None:
    import torch
    from llamafactory.model import loader
    from transformers import GlmConfig, GlmForCausalLM

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    monkeypatch.setattr(loader, "apply_liger_kernel", lambda *_: None)
    before = GlmForCausalLM.forward
    with remedies.applied():
        arguments = SimpleNamespace(enable_liger_kernel=enabled)
        config = GlmConfig.from_pretrained(folder)
        loader.apply_liger_kernel(config, arguments, trains, needs_logits)
        assert GlmForCausalLM.forward is before
