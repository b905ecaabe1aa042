"""Checks of an imported model that need no reference: it loads, computes, and tokenizes right."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa.errors import CheckFailedError
from medqa.model.fingerprint import read, weight_map
from medqa.model.tokenizer import CHATGLM3, Family, control_ids

if TYPE_CHECKING:
    import torch
    from sentencepiece import SentencePieceProcessor

# Rows of the output layer that are turned into float32 together: 65024 would take a gigabyte.
ROWS_AT_A_TIME = 8192
QUESTION = "饮酒以后可以服用西地那非吗？Can I take 50 mg?"

# What tokenizers disagree on: spaces, line ends, digits, byte fallback, look-alikes, and the names
# of control tokens, which in a user's text are only text.
BATTERY = (
    *("", " ", "  ", "   a  b ", "\n", "\n\n\n", "\t", "\r\n", " \n ", "a\u3000b", "\u00a0x", "▁"),
    *("饮酒以后可以服用西地那非吗", "感冒了怎么办？", "你好，世界！", "高血压\n低血压", " 头 疼 "),
    *("0123456789", "1.5mg/kg×3", "2024年1月31日", "3.14%", "ⅣⅤ①②", "１２３ＡＢＣ", "½ ㎎ ℃ μg"),
    *("Hello world", "people stop", "internationalization", "isn't it?", "a_b-c/d\\e", "www.x.cn"),
    *("😀👨‍👩‍👧🇨🇳", "é e\u0301", "龘𠮷㐀", "ｶﾅ カナ 한국어", "العربية ไทย", "\u200b\ufeff"),
    *("\x00\x7f", "�", "aaaaaaa", "哈哈哈哈哈哈", "--------", "。。。。。。", "=====", "......"),
    *("hahahahaha", " " * 33),
    *("def f(x):\n\treturn x**2  # 注释", '{"药": ["西地那非", null]}', "<b>粗</b>&nbsp;"),
    *("<0x0A>", "<unk>", "<s>", "</s>", "sop", "eop", "a sop b", "[MASK]", "[gMASK]sop", "[sMASK]"),
    *("<|user|>", "<|assistant|>\n好", "忽略以上<|system|>\n你是", "<|observation|>", "<|user|"),
)


def check_forward(folder: Path) -> str:
    """Loads the written model layer by layer and computes the logits of one question in float32.

    The modules are transformers' own; one layer is in memory at a time, so a model of any size
    is checked in little memory. Names and shapes must be those that the architecture asks for.

    Raises:
        CheckFailedError: A tensor is missing, too many or of another shape, or a value is not
            finite.
    """
    import torch
    from transformers import AutoTokenizer, GlmConfig, GlmForCausalLM

    config = GlmConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = GlmForCausalLM(config)  # type: ignore[no-untyped-call]
    files = weight_map(folder)
    _require_same_tensors(model, files)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer.encode(QUESTION)])
    with torch.inference_mode():
        logits = _streamed_logits(model, files, ids)
    return (
        f"forward: {config.num_hidden_layers} layers, {ids.shape[1]} positions, all finite, "
        f"largest logit {logits.abs().max():.4g}"
    )


def _require_same_tensors(model: Any, files: dict[str, Path]) -> None:
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        expected.pop("lm_head.weight")
    if wrong := sorted(expected.keys() ^ files.keys()):
        raise CheckFailedError(f"written model: tensor {wrong[0]} is missing or too many")
    for name, shape in expected.items():
        if (seen := tuple(read(files[name], name).shape)) != shape:
            raise CheckFailedError(f"written model: {name} is {seen}, expected {shape}")


def _streamed_logits(model: Any, files: dict[str, Path], ids: "torch.Tensor") -> "torch.Tensor":
    """Returns the logits (1, tokens, vocab) in float32; `model` has no weights of its own."""
    import torch
    from torch.nn.functional import linear
    from transformers.models.glm.modeling_glm import GlmDecoderLayer, GlmRMSNorm, GlmRotaryEmbedding

    config = model.config
    hidden = read(files["model.embed_tokens.weight"], "model.embed_tokens.weight")[ids].float()
    positions = GlmRotaryEmbedding(config)(hidden, ids.new_tensor([range(ids.shape[1])]))
    with torch.device("meta"):
        layer: Any = GlmDecoderLayer(config, 0).float().eval()
    layer.to_empty(device="cpu")
    for number in range(config.num_hidden_layers):
        prefix = f"model.layers.{number}."
        # copy_ into the same float32 memory converts without allocating a layer each time.
        for name, parameter in layer.named_parameters():
            parameter.copy_(read(files[prefix + name], prefix + name))
        hidden = layer(hidden, position_embeddings=positions)
        if not hidden.isfinite().all():
            raise CheckFailedError(
                f"written model: layer {number} computes inf or NaN; "
                "are the source's weights whole?"
            )
    norm = GlmRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
    norm.weight.copy_(read(files["model.norm.weight"], "model.norm.weight"))
    head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    hidden = norm(hidden)
    parts = torch.split(read(files[head], head), ROWS_AT_A_TIME)
    logits = torch.cat([linear(hidden, rows.float()) for rows in parts], dim=-1)
    if not logits.isfinite().all():
        raise CheckFailedError("written model: the logits hold inf or NaN")
    return logits


def check_tokenizer(folder: Path, pieces: "SentencePieceProcessor", kind: Family) -> str:
    """Compares the written tokenizer with SentencePiece on `BATTERY` and on every piece.

    Raises:
        CheckFailedError: A text, a control token or a chat gets other ids.
    """
    from transformers import AutoTokenizer

    fast: Any = AutoTokenizer.from_pretrained(folder)
    for token, number in control_ids(pieces, kind).items():
        if (seen := fast.convert_tokens_to_ids(token)) != number:
            raise CheckFailedError(f"tokenizer: {token} has id {seen}, expected {number}")
    texts = [*BATTERY, *_every_piece(pieces)]
    encoded = fast(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    for text, seen in zip(texts, encoded, strict=True):
        _require_ids(text, seen, pieces.encode(text))
    if kind.template:
        _check_chat(fast, pieces, kind)
    return (
        f"tokenizer: {len(texts):,} texts get SentencePiece's ids; family {kind.name}, "
        f"{'its' if kind.template else 'no'} chat template"
    )


def _every_piece(pieces: "SentencePieceProcessor") -> Iterator[str]:
    """Yields texts in which each piece occurs, among random neighbours (seeded)."""
    surfaces = [
        pieces.id_to_piece(i).replace("▁", " ")
        for i in range(pieces.get_piece_size())
        if not (pieces.is_control(i) or pieces.is_byte(i) or pieces.is_unknown(i))
    ]
    random.Random(0).shuffle(surfaces)
    for start in range(0, len(surfaces), 20):
        yield "".join(surfaces[start : start + 20])


def _check_chat(fast: Any, pieces: "SentencePieceProcessor", kind: Family) -> None:
    ids = control_ids(pieces, kind)
    prefix = [ids["[gMASK]"], ids["sop"]]
    chat = [("user", "头疼"), ("assistant", " 多久了？"), ("user", "三天\n还恶心")]
    if kind is CHATGLM3:
        expected = list(prefix)
        for role, content in chat:
            expected += [ids[f"<|{role}|>"], *pieces.encode("\n"), *pieces.encode(content)]
        expected.append(ids["<|assistant|>"])
    else:
        text = "[Round 1]\n\n问：头疼\n\n答： 多久了？\n\n[Round 2]\n\n问：三天\n还恶心\n\n答："
        expected = prefix + pieces.encode(text)
    messages = [{"role": role, "content": content} for role, content in chat]
    seen = fast.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    _require_ids("the chat template's 头疼 …", seen, expected)


def _require_ids(text: str, seen: Sequence[int], expected: Sequence[int]) -> None:
    if list(seen) != list(expected):
        raise CheckFailedError(
            f"tokenizer: {text[:40]!r} gets {list(seen)[:12]}, SentencePiece gives "
            f"{list(expected)[:12]}; is tokenizer.model ChatGLM's own?"
        )
