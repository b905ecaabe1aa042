"""GGUF: what the file holds, what llama.cpp would read in a text, and what is refused.

Where llama-cpp-python is installed (it compiles for minutes, so it is not among what we install),
llama.cpp itself is asked as well.
"""

import heapq
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medqa.errors import CheckFailedError, CheckpointError, TargetError
from medqa.export import gguf
from medqa.export.gguf_vocab import vocabulary

TEXTS = (
    "饮酒以后可以服用西地那非吗",
    "米索前列醇 misoprostol 200µg, for people; sop eop",
    "  two  spaces\n\n\tTab ",
    "😀 𠮷 龘",
    "</s><|user|>[gMASK]sop<sop>",
    "12345.67 mg/dL ２mg ℃",
    "<0x41> <unk>",
    "▁",
    "",
)
CHATS = (
    [{"role": "user", "content": "头痛怎么办？"}],
    [{"role": "user", "content": "Is misoprostol safe for people over 60?"}],
    [
        {"role": "system", "content": "你是医生。"},
        {"role": "user", "content": "头痛怎么办？"},
        {"role": "assistant", "content": "多休息。"},
        {"role": "user", "content": "  and then\nwhat?"},
    ],
)


def texts(count: int = 300) -> list[str]:
    rng = random.Random(26)
    letters = "abehloprst 的了药病头痛吃mg0123<>|[]/\n.。，？▁"
    made = ["".join(rng.choices(letters, k=rng.randint(1, 40))) for _ in range(count)]
    return [*TEXTS, *made]


def read(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns metadata and tensors, these in float32 and in the shapes of torch."""
    from gguf import GGUFReader, quants

    reader = GGUFReader(file)
    tensors = {
        t.name: quants.dequantize(t.data, t.tensor_type).reshape(tuple(map(int, t.shape[::-1])))
        for t in reader.tensors
    }
    return {name: field.contents() for name, field in reader.fields.items()}, tensors


def by_llama_cpp(tokens: list[str], scores: list[float], text: str) -> list[int]:
    """``llm_tokenizer_spm_session`` of llama.cpp's src/llama-vocab.cpp."""
    if not text:
        return []
    ids = {token: n for n, token in enumerate(tokens)}
    symbols: list[str | None] = list((" " + text).replace(" ", "▁"))
    before = [n - 1 for n in range(len(symbols))]
    after = [n + 1 if n + 1 < len(symbols) else -1 for n in range(len(symbols))]
    queue: list[tuple[float, int, int, str]] = []

    def offer(left: int, right: int) -> None:
        if left != -1 and right != -1:
            joined = f"{symbols[left]}{symbols[right]}"
            if joined in ids:
                heapq.heappush(queue, (-scores[ids[joined]], left, right, joined))

    for n in range(1, len(symbols)):
        offer(n - 1, n)
    while queue:
        _, left, right, joined = heapq.heappop(queue)
        if symbols[left] is None or f"{symbols[left]}{symbols[right]}" != joined:
            continue
        symbols[left], symbols[right] = joined, None
        after[left] = after[right]
        if after[left] != -1:
            before[after[left]] = left
        offer(before[left], left)
        offer(left, after[left])
    found = []
    for symbol in filter(None, symbols):
        known = ids.get(symbol)
        found += [ids[f"<0x{b:02X}>"] for b in symbol.encode()] if known is None else [known]
    return found


@pytest.fixture
def source(project: Path) -> Path:
    return project / "models/tiny"


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_the_file_holds_the_model(source: Path, project: Path, kind: gguf.Kind) -> None:
    from safetensors.torch import load_file

    file = gguf.convert(source, project / "models/made", kind)
    assert {f.name for f in file.parent.iterdir()} == {"made.gguf", "Modelfile", gguf.RECORD}
    _, tensors = read(file)
    model = {name: t.float().numpy() for name, t in load_file(source / "model.safetensors").items()}
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        **{
            f"model.layers.{n}.{old}": f"blk.{n}.{new}"
            for n in range(2)
            for old, new in {
                "input_layernorm": "attn_norm",
                "post_attention_layernorm": "ffn_norm",
                "self_attn.o_proj": "attn_output",
                "mlp.gate_up_proj": "ffn_up",
                "mlp.down_proj": "ffn_down",
            }.items()
        },
    }
    rounding = {"f32": 0, "f16": 2**-11, "bf16": 2**-8}[kind]

    def same(found: np.ndarray, wanted: np.ndarray) -> None:
        exact = rounding if found.ndim > 1 else 0
        np.testing.assert_allclose(found, wanted, rtol=exact, atol=exact * 1e-3)

    for old, new in names.items():
        same(tensors.pop(f"{new}.weight"), model.pop(f"{old}.weight"))
    heads = [64, 32, 32]  # 4 query heads and 2 groups, 16 wide
    for n in range(2):
        for part in ("weight", "bias"):
            fused = np.split(tensors.pop(f"blk.{n}.attn_qkv.{part}"), np.cumsum(heads)[:-1])
            for letter, found in zip("qkv", fused, strict=True):
                same(found, model.pop(f"model.layers.{n}.self_attn.{letter}_proj.{part}"))
    assert not tensors
    assert not model


def test_what_llama_cpp_is_told(source: Path, project: Path) -> None:
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["rope_parameters"] |= {"rope_theta": 500000.0}  # of the 32k variant
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    told, _ = read(gguf.convert(source, project / "models/made", "f16"))
    assert told["general.architecture"] == "chatglm"
    assert {key.partition(".")[2]: value for key, value in told.items() if "chatglm." in key} == {
        "context_length": 512,
        "embedding_length": 64,
        "feed_forward_length": 176,
        "block_count": 2,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
        "rope.dimension_count": 8,
        "rope.freq_base": 500000.0,
    }
    ids = {key.split(".")[-1]: value for key, value in told.items() if key.endswith("_token_id")}
    tokens = told["tokenizer.ggml.tokens"]
    assert {key: tokens[value] for key, value in ids.items()} == {
        "eos_token_id": "</s>",
        "eot_token_id": "<|user|>",
        "eom_token_id": "<|observation|>",
        "unknown_token_id": "<unk>",
        "padding_token_id": "<unk>",
    }
    assert told["tokenizer.ggml.model"] == "llama"
    assert told["tokenizer.ggml.add_bos_token"] is False
    assert len(tokens) == config["vocab_size"] == len(set(tokens))


def test_ids_of_texts_are_the_tokenizers(source: Path, project: Path) -> None:
    from transformers import AutoTokenizer

    told, _ = read(gguf.convert(source, project / "models/made", "f16"))
    tokens, scores = told["tokenizer.ggml.tokens"], told["tokenizer.ggml.scores"]
    tokenizer = AutoTokenizer.from_pretrained(source)
    for text in texts():
        wanted = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert by_llama_cpp(tokens, scores, text) == wanted, text


@pytest.mark.slow
def test_the_real_tokenizer(shared: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from medqa.model.tokenizer import CHATGLM3, control_ids, sentencepiece, write_tokenizer

    pieces = sentencepiece(shared / "chatglm3/tokenizer.model")
    write_tokenizer(pieces, CHATGLM3, tmp_path, 8192)
    known = control_ids(pieces, CHATGLM3)
    generation = {"eos_token_id": [known[token] for token in CHATGLM3.stops]}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    made = vocabulary(tmp_path, 65024)
    assert made.stops == [2, 64795, 64797]
    assert made.tokens[64789:64794] == ["[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"]
    assert [n for n, kind in enumerate(made.types) if kind == 5] == list(range(64798, 65024))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in texts(100):
        wanted = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert by_llama_cpp(made.tokens, made.scores, text) == wanted, text


def test_a_chat_is_written_as_in_training(source: Path) -> None:
    """And old programs, which guess a template's format from its text, guess none."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from transformers import AutoTokenizer

    template = vocabulary(source, 512).template
    assert template is not None
    tokenizer = AutoTokenizer.from_pretrained(source)
    compiled = ImmutableSandboxedEnvironment().from_string(template)
    for chat in CHATS:
        wanted = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        said = compiled.render(messages=chat, add_generation_prompt=True)
        assert said == wanted.replace("[gMASK]sop", "[gMASK]<sop>")
    for guessed in ("[gMASK]sop", "[gMASK]<sop>", "<|user|>", "<|end|>"):
        assert guessed not in template


def test_the_modelfile_names_the_file_and_its_tokens(source: Path, project: Path) -> None:
    file = gguf.convert(source, project / "models/made", "f16")
    text = (file.parent / "Modelfile").read_text(encoding="utf-8")
    assert "\nFROM ./made.gguf\n" in text
    assert 'TEMPLATE """[gMASK]<sop>' in text
    assert "[gMASK]sop" not in text
    assert re.search(r"num_ctx 512\n$", text)


def test_eight_bits(source: Path, project: Path) -> None:
    """The golden model's rows cannot be cut into blocks of 32, another's can."""
    from transformers import AutoModelForCausalLM, GlmConfig

    with pytest.raises(CheckpointError, match=r"q8_0 stores 32 weights together, and a row .* 176"):
        gguf.convert(source, project / "models/made", "q8_0")
    assert not (project / "models/made").exists()
    config = GlmConfig.from_pretrained(source, intermediate_size=192)
    AutoModelForCausalLM.from_config(config).save_pretrained(source)
    file = gguf.convert(source, project / "models/made", "q8_0")
    assert file.stat().st_size < 0.4 * (source / "model.safetensors").stat().st_size
    record = json.loads((file.parent / gguf.RECORD).read_text(encoding="utf-8"))
    assert 1e-3 < record["lost"] < 1e-2


def test_a_second_time(source: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gguf.convert(source, project / "models/made", "f16")
    capsys.readouterr()
    gguf.convert(source, project / "models/made", "f16")
    assert capsys.readouterr().out == "up to date: models/made\n"
    with pytest.raises(TargetError, match="--overwrite"):
        gguf.convert(source, project / "models/made", "bf16")
    gguf.convert(source, project / "models/made", "bf16", overwrite=True)


def test_weights_too_large_for_the_type(source: Path, project: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(source / "model.safetensors")
    weights["lm_head.weight"][3, 4] = 1e6
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckFailedError, match=r"output\.weight in f16 is \S+ away from the model"):
        gguf.convert(source, project / "models/made", "f16")
    assert not (project / "models/made").exists()
    gguf.convert(source, project / "models/made", "bf16")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
        ({"head_dim": 8}, "heads that are not as wide"),
        ({"num_hidden_layers": 3}, "are missing or too many, first model.layers.2"),
        ({"attention_bias": False}, "are missing or too many, first model.layers.0"),
    ],
)
def test_another_network_is_refused(
    source: Path, project: Path, change: dict[str, object], said: str
) -> None:
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=said):
        gguf.convert(source, project / "models/made", "f16")
    assert not (project / "models/made").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalizer": None}, "is not the tokenizer of an imported ChatGLM"),
        ({"added_tokens": [{"id": 500, "content": "<sop>"}]}, "two tokens have one text"),
        ({"added_tokens": [{"id": 500, "content": "高血"}]}, "read '高' and '血' in a text as"),
        ({"added_tokens": [{"id": 512, "content": "<|x|>"}]}, "token 512 has no row"),
    ],
)
def test_a_tokenizer_that_would_read_otherwise_is_refused(
    source: Path, change: dict[str, Any], said: str
) -> None:
    file = source / "tokenizer.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    change = {k: values[k] + v if k == "added_tokens" else v for k, v in change.items()}
    file.write_text(json.dumps(values | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=said):
        vocabulary(source, 512)


@pytest.mark.slow
def test_llama_cpp_reads_and_answers_as_transformers(source: Path, project: Path) -> None:
    llama_cpp = pytest.importorskip(
        "llama_cpp", reason="needs llama-cpp-python, which compiles for minutes: pip install it"
    )
    import torch
    from transformers import AutoTokenizer, GlmForCausalLM

    file = gguf.convert(source, project / "models/made", "f32")
    theirs = llama_cpp.Llama(
        str(file), n_ctx=512, n_threads=1, logits_all=True, type_k=0, type_v=0, verbose=False
    )
    tokenizer = AutoTokenizer.from_pretrained(source)
    for text in texts():
        wanted = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert theirs.tokenize(text.encode(), add_bos=False, special=False) == wanted, text
    write = llama_cpp.llama_chat_format.Jinja2ChatFormatter(
        theirs.metadata["tokenizer.chat_template"], eos_token="</s>", bos_token="<s>"
    )
    model = GlmForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    for chat in CHATS:
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        said = write(messages=chat).prompt
        assert theirs.tokenize(said.encode(), add_bos=False, special=True) == ids
        with torch.inference_mode():
            answer = model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)
            wanted = model(answer).logits[0].numpy()
        theirs.reset()
        theirs.eval(answer[0].tolist())
        found = np.array(theirs.scores[: answer.shape[1]])
        assert np.abs(found - wanted).max() < 1e-3 * wanted.std()
        assert found[len(ids) - 1 : -1].argmax(-1).tolist() == answer[0, len(ids) :].tolist()
