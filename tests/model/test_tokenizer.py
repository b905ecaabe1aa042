"""Tokenizer and chat templates, with the small tokenizer and with ChatGLM3's own."""

import json
import random
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from medqa.errors import CheckFailedError, CheckpointError
from medqa.model import tokenizer as module
from medqa.model.check import check_tokenizer
from medqa.model.importer import import_model
from medqa.model.tokenizer import CHATGLM2, CHATGLM3, CODEGEEX2, family, sentencepiece

from .original_chatglm import write_checkpoint

CONTROL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|user|>", "<|assistant|>")


@pytest.fixture(scope="session")
def real_model(shared, tmp_path_factory):
    """A random checkpoint of ChatGLM3's vocabulary with its real tokenizer, imported."""
    folder = tmp_path_factory.mktemp("real")
    shape = {"padded_vocab_size": 65024, "hidden_size": 8, "num_layers": 1, "seq_length": 8192}
    write_checkpoint(folder / "source", shared / "chatglm3" / "tokenizer.model", shape)
    import_model(folder / "source", folder / "target", dtype="keep", origin="test")
    return folder / "target"


@pytest.fixture(scope="session")
def real(real_model):
    return AutoTokenizer.from_pretrained(real_model)


@pytest.fixture(scope="session")
def real_pieces(shared):
    return sentencepiece(shared / "chatglm3" / "tokenizer.model")


@pytest.fixture(scope="session")
def figures(shared):
    text = (shared / "chatglm3" / "tokenizer_golden.json").read_text(encoding="utf-8")
    return json.loads(text)


@pytest.fixture
def small(golden, tmp_path):
    import_model(golden, tmp_path / "small", dtype="keep", origin="test")
    return AutoTokenizer.from_pretrained(tmp_path / "small")


def plain(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def test_every_text_gets_the_original_ids(real, figures):
    wrong = [e["text"] for e in figures["text"] if plain(real, e["text"]) != e["ids"]]
    assert len(figures["text"]) > 300
    assert wrong == []


def test_every_chat_gets_the_original_ids_from_the_chat_template(real, figures):
    compared = 0
    for chat in figures["chat"]:
        if any(token in m["content"] for m in chat["messages"] for token in CONTROL):
            continue
        made = real.apply_chat_template(
            chat["messages"], add_generation_prompt=True, return_dict=False
        )
        assert made == chat["ids"]
        compared += 1
    assert compared == len(figures["chat"]) - 1


LLAMAFACTORY = """
import json, sys
from llamafactory.data.template import get_template_and_fix_tokenizer
from llamafactory.hparams import DataArguments
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], split_special_tokens=True)
template = get_template_and_fix_tokenizer(tokenizer, DataArguments(template="chatglm3"))
made = []
for chat in json.load(sys.stdin):
    messages = chat["messages"]
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
    answer = {"role": "assistant", "content": "好"}
    prompt, _ = template.encode_oneturn(tokenizer, [*messages, answer], system)
    made.append(prompt)
print("IDS", json.dumps([made, len(tokenizer)]))
"""


def test_every_chat_gets_the_original_ids_from_llamafactory(real_model, figures):
    done = subprocess.run(
        [sys.executable, "-c", LLAMAFACTORY, str(real_model)],
        input=json.dumps(figures["chat"]),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("IDS ")]
    made, size = json.loads(line[4:])
    assert made == [chat["ids"] for chat in figures["chat"]]
    assert size == 64798  # the template adds no token


def test_random_strings_get_sentencepieces_ids(real, real_pieces):
    choose = random.Random(7)
    alphabet = [
        *"  \n\t▁aAeEtT019.,;-_=<>|[]()。，、？！药糖尿病血压头疼饮酒😀é\u0301𠮷ｶ\u3000",
        "<|user|>",
        "sop",
    ]
    texts = ["".join(choose.choices(alphabet, k=choose.randrange(60))) for _ in range(3000)]
    texts += [c * n for c in "a-=.。哈 1!~啊▁" for n in range(1, 40)]
    texts += ["".join(map(chr, choose.choices(range(1, 0xD7FF), k=20))) for _ in range(500)]
    made = real(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    wrong = [t for t, ids in zip(texts, made, strict=True) if ids != real_pieces.encode(t)]
    assert wrong == []


def test_decoding_gives_the_text_back(real):
    for text in ("饮酒以后可以服用西地那非吗？", " a  b\n 50 mg", "😀𠮷\tx"):
        assert real.decode(plain(real, text)) == text
    chat = [{"role": "user", "content": "头疼"}]
    ids = real.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert real.decode(ids, skip_special_tokens=True).strip() == "头疼"


def test_control_tokens_stand_at_the_original_ids(real):
    names = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", *module.ROLES)
    assert real.convert_tokens_to_ids(list(names)) == list(range(64789, 64798))
    assert (real.pad_token_id, real.unk_token_id, real.eos_token_id) == (0, 0, 2)
    assert real.bos_token is None
    assert real.padding_side == "left"
    assert len(real) == 64798
    assert real.model_max_length == 8192


def test_plain_calls_put_the_original_prefix_first(real):
    assert real.encode("头疼") == [64790, 64792, *plain(real, "头疼")]
    assert real("头疼").keys() == {"input_ids", "attention_mask"}


def test_words_that_hold_sop_or_eop_are_words(real):
    for text in ("people", "stop sophisticated people", "标准sop流程"):
        assert real.encode(text, add_special_tokens=False) == plain(real, text)
    assert 64792 not in plain(real, "a sop b")


def test_the_written_files_load_without_code_and_without_the_original(real_model):
    files = {p.name for p in real_model.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= files
    assert not any(name.endswith((".py", ".model")) for name in files)


def test_the_chat_template_covers_what_build_chat_input_covers(small, golden):
    pieces = sentencepiece(golden / "tokenizer.model")
    ids = module.control_ids(pieces, CHATGLM3)
    tools = [{"name": "查药", "parameters": {"药名": "字符串"}}]
    chat = [
        {"role": "system", "content": "可用：", "tools": tools},
        {"role": "user", "content": "\n 头疼 "},
        {"role": "assistant", "metadata": "查药", "content": "```f()```"},
        {"role": "tool", "content": "阿司匹林"},
        {"role": "assistant", "content": ""},
    ]
    shown = json.dumps(tools, indent=4, ensure_ascii=False)
    expected = [ids["[gMASK]"], ids["sop"]]
    for role, metadata, content in [
        ("system", "", "可用：\n" + shown),
        ("user", "", "\n 头疼 "),
        ("assistant", "查药", "```f()```"),
        ("observation", "", "阿司匹林"),
        ("assistant", "", ""),
    ]:
        expected += [ids[f"<|{role}|>"], *pieces.encode(metadata + "\n"), *pieces.encode(content)]
    assert small.apply_chat_template(chat, return_dict=False) == expected


def test_an_unknown_role_is_an_error(small):
    from jinja2 import TemplateError

    with pytest.raises(TemplateError, match="unknown role: doctor"):
        small.apply_chat_template([{"role": "doctor", "content": "x"}])


def test_a_tokenizer_that_differs_from_sentencepiece_fails_the_check(golden, tmp_path):
    import_model(golden, tmp_path / "small", dtype="keep", origin="test")
    pieces = sentencepiece(golden / "tokenizer.model")
    assert "get SentencePiece's ids" in check_tokenizer(tmp_path / "small", pieces, CHATGLM3)
    file = tmp_path / "small" / "tokenizer.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["model"]["merges"].pop()
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CheckFailedError, match="SentencePiece gives"):
        check_tokenizer(tmp_path / "small", pieces, CHATGLM3)


def test_a_chat_template_that_differs_fails_the_check(golden, tmp_path):
    import_model(golden, tmp_path / "small", dtype="keep", origin="test")
    pieces = sentencepiece(golden / "tokenizer.model")
    file = tmp_path / "small" / "chat_template.jinja"
    file.write_text(file.read_text("utf-8").replace("{{- ' ' ~ content -}}", "{{- content -}}"))
    with pytest.raises(CheckFailedError, match="chat template"):
        check_tokenizer(tmp_path / "small", pieces, CHATGLM3)


def test_families_are_told_apart(tmp_path):
    def told(folder, origin="x", **files):
        folder.mkdir()
        for name, text in files.items():
            suffix = "py" if "tokenization" in name else "json"
            (folder / f"{name}.{suffix}").write_text(text, encoding="utf-8")
        return family(folder, origin)

    assert told(tmp_path / "a") is CHATGLM3
    assert told(tmp_path / "b", origin="chatglm2-6b") is CHATGLM2
    assert told(tmp_path / "c", config='{"_name_or_path": "THUDM/codegeex2-6b"}') is CODEGEEX2
    assert told(tmp_path / "d", config='{"_name_or_path": "THUDM/chatglm3-6b-base"}') is CHATGLM3
    assert (
        told(tmp_path / "e", tokenizer_config='{"name_or_path": "THUDM/chatglm2-6b"}') is CHATGLM2
    )
    assert told(tmp_path / "f", tokenization_chatglm='["[MASK]", "sop"]') is CHATGLM2
    assert told(tmp_path / "g", tokenization_chatglm='["[MASK]", "<|user|>"]') is CHATGLM3


@pytest.mark.parametrize("kind", [CHATGLM2, CODEGEEX2], ids=lambda kind: kind.name)
def test_older_families_get_their_own_tokens_and_stops(tmp_path, small_tokenizer, kind):
    write_checkpoint(tmp_path / "source", small_tokenizer)
    done = import_model(tmp_path / "source", tmp_path / "to", dtype="keep", origin=kind.name)
    fast = AutoTokenizer.from_pretrained(tmp_path / "to")
    assert len(fast) == 485
    generation = json.loads((tmp_path / "to" / "generation_config.json").read_text("utf-8"))
    assert generation["eos_token_id"] == [2]
    if kind is CODEGEEX2:
        assert fast.chat_template is None
        assert "no chat template" in " ".join(done.lines)
    else:
        chat = [{"role": "system", "content": "医"}, {"role": "user", "content": "头"}]
        text = fast.apply_chat_template(chat, tokenize=False)
        assert text == "[gMASK]sop[Round 1]\n\n问：医\n\n头\n\n答："


def test_a_file_that_is_no_sentencepiece_model(tmp_path):
    (tmp_path / "tokenizer.model").write_text("aGVsbG8= 0\n", encoding="utf-8")  # as GLM-4 has it
    with pytest.raises(CheckpointError, match=r"not a SentencePiece model; .*GLM-4"):
        sentencepiece(tmp_path / "tokenizer.model")


def test_a_vocabulary_that_the_model_has_no_rows_for(tmp_path, small_tokenizer):
    write_checkpoint(tmp_path / "source", small_tokenizer, {"padded_vocab_size": 488})
    with pytest.raises(CheckpointError, match="needs 489 rows, but padded_vocab_size is 488"):
        import_model(tmp_path / "source", tmp_path / "target", dtype="keep", origin="test")
