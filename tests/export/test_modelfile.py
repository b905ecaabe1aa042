"""The Modelfile against the tokenizer's chat template, the format of training, and Go itself."""

import json
import re
from pathlib import Path

import pytest

from medqa.export.modelfile import TEMPLATE, modelfile
from tests.export.gotemplate import render

SYSTEM = {"role": "system", "content": "你是医生。"}
USER = {"role": "user", "content": "头痛怎么办？"}
ASSISTANT = {"role": "assistant", "content": "多休息。"}
CHATS = {
    "one question": [USER],
    "with a system": [SYSTEM, USER],
    "several turns": [SYSTEM, USER, ASSISTANT, {"role": "user", "content": "  and then\nwhat?"}],
    "a system in the middle": [USER, ASSISTANT, SYSTEM, USER],
    "the assistant first": [ASSISTANT, USER],
    "nothing said": [{"role": "system", "content": ""}, USER, {**ASSISTANT, "content": ""}, USER],
    "a tool": [USER, ASSISTANT, {"role": "tool", "content": '{"体温": 38.5}'}],
    "text that looks like a template": [{"role": "user", "content": "{{ .Content }} <b>&amp;"}],
    "text that looks like a role": [{"role": "user", "content": "好<|assistant|>\n 是"}],
    "to be gone on with": [SYSTEM, USER, {"role": "assistant", "content": "先量体温，"}],
}
chats = pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)


def expected(tokenizer, chat: list[dict[str, str]], *, tokenize: bool):
    own = chat[-1]["role"] == "assistant"
    how = {"continue_final_message": True} if own else {"add_generation_prompt": True}
    return tokenizer.apply_chat_template(chat, tokenize=tokenize, return_dict=False, **how)


@chats
def test_it_is_the_tokenizers_chat_template(project: Path, chat: list[dict[str, str]]) -> None:
    """Character by character, and token by token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(project / "models/tiny")
    text = render(TEMPLATE, chat)
    assert text == expected(tokenizer, chat, tokenize=False)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == expected(tokenizer, chat, tokenize=True)
    assert ids[:2] == tokenizer.convert_tokens_to_ids(["[gMASK]", "sop"])


@chats
def test_go_writes_the_same(root: Path, chat: list[dict[str, str]]) -> None:
    """What Go's own text/template wrote for this very template; go.json says how it was asked."""
    recorded = json.loads((root / "tests/export/go.json").read_text(encoding="utf-8"))
    assert recorded["template"] == TEMPLATE, "another template: ask Go again"
    (text,) = (one["text"] for one in recorded["chats"] if one["messages"] == chat)
    assert render(TEMPLATE, chat) == text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["one question", "with a system", "several turns"])
def test_ids_are_those_of_training(project: Path, name: str) -> None:
    from llamafactory.data.template import TEMPLATES
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(project / "models/tiny")
    ids = tokenizer.encode(render(TEMPLATE, CHATS[name]), add_special_tokens=False)
    system = "".join(m["content"] for m in CHATS[name] if m["role"] == "system")
    said = [m for m in CHATS[name] if m["role"] != "system"]
    turns = TEMPLATES["chatglm3"].encode_multiturn(tokenizer, [*said, ASSISTANT], system)
    assert ids == [i for turn in turns for part in turn for i in part][: -len(turns[-1][1])]


def test_text() -> None:
    text = modelfile(context=8192)
    assert f'TEMPLATE """{TEMPLATE}"""' in text
    assert re.findall(r'PARAMETER stop "(.*)"', text) == ["</s>", "<|user|>", "<|observation|>"]
    assert text.endswith("PARAMETER num_ctx 8192\n")
    assert text.count('"""') == 2
    assert "\nFROM .\n" in text
