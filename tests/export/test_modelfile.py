"""The Modelfile against the format of training and the tokenizer's own chat template."""

import re
from pathlib import Path

import pytest

from medqa.export.modelfile import TEMPLATE, modelfile

SYSTEM = "你是医生。"
MESSAGES = [
    {"role": "user", "content": "头痛怎么办？"},
    {"role": "assistant", "content": "多休息。"},
    {"role": "user", "content": "  and then\nwhat?"},
]


def render(template: str, system: str, messages: list[dict[str, str]]) -> str:
    """What Ollama makes of a template of this shape (Go's text/template)."""
    shape = (
        r"(.*?)\{\{ if \.System \}\}(.*?)\{\{ end \}\}\{\{ range \.Messages \}\}"
        r'\{\{ if eq \.Role "user" \}\}(.*?)\{\{ else if eq \.Role "assistant" \}\}(.*?)'
        r"\{\{ end \}\}\{\{ end \}\}"
    )
    match = re.fullmatch(shape, template, re.DOTALL)
    assert match
    prefix, of_system, of_user, of_assistant = match.groups()
    text = prefix + (of_system.replace("{{ .System }}", system) if system else "")
    forms = {"user": of_user, "assistant": of_assistant}
    for message in messages:
        text += forms[message["role"]].replace("{{ .Content }}", message["content"])
    return text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("system", ["", SYSTEM])
def test_ids_are_those_of_training_and_of_the_chat_template(project: Path, system: str) -> None:
    from llamafactory.data.template import TEMPLATES
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(project / "models/tiny")
    ids = tokenizer.encode(render(TEMPLATE, system, MESSAGES), add_special_tokens=False)

    answered = [*MESSAGES, {"role": "assistant", "content": "x"}]
    turns = TEMPLATES["chatglm3"].encode_multiturn(tokenizer, answered, system)
    assert ids == [i for turn in turns for part in turn for i in part][: len(ids)]
    assert len(ids) == sum(len(p) for t in turns for p in t) - len(turns[-1][1])

    chat = [{"role": "system", "content": system}] * bool(system) + MESSAGES
    by_template = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert ids == by_template


def test_text() -> None:
    text = modelfile(context=8192)
    assert f'TEMPLATE """{TEMPLATE}"""' in text
    assert re.findall(r'PARAMETER stop "(.*)"', text) == ["</s>", "<|user|>", "<|observation|>"]
    assert text.endswith("PARAMETER num_ctx 8192\n")
    assert text.count('"""') == 2
