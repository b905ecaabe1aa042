"""A ChatGLM3 of about a million parameters in the original layout, trained from nothing.

It stands in for ChatGLM3-6B wherever there is no GPU: same file layout, same weight names, same
tokenizer kind and chat format, so import, LoRA, merge and compare run the same code on it.
"""

import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from medqa import files, provenance
from medqa.config import Strict
from medqa.errors import MissingInputError
from medqa.model.tiny_layout import write_original
from medqa.paths import resolve, shown
from medqa.progress import progress

if TYPE_CHECKING:
    import torch
    from sentencepiece import SentencePieceProcessor
    from transformers import GlmForCausalLM

RECORD = "medqa_tiny.json"
CONTROL_TOKENS = (
    "[MASK]", "[gMASK]", "[sMASK]", "sop", "eop",
    "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
)  # fmt: skip
_EOS = 2


class TinyConfig(Strict):
    """The keys of ``configs/tiny/make_tiny.yaml``, which says what each is for."""

    output_dir: str
    general: str
    neutral: str
    tokenizer_text: list[str]
    pieces: int
    hidden_size: int
    ffn_hidden_size: int
    num_layers: int
    num_attention_heads: int
    multi_query_group_num: int
    seq_length: int
    steps: int
    batch_size: int
    learning_rate: float
    seed: int


def make(config: TinyConfig, *, overwrite: bool = False) -> str:
    """Trains tokenizer and model, and writes the checkpoint in ChatGLM3's original layout.

    The same config gives the same bytes on the same machine.

    Returns:
        One line that says what was done.

    Raises:
        MissingInputError: A text file is not there.
        TargetError: The folder holds a model made from other inputs.
    """
    target = resolve(config.output_dir)
    sources = sorted({config.general, config.neutral, *config.tokenizer_text})
    for source in sources:
        if not resolve(source).is_file():
            raise MissingInputError(f"{source} does not exist; run: python scripts/make_sample.py")
    inputs = provenance.digest(*map(resolve, sources))
    settings = config.model_dump()
    if provenance.is_current(target / RECORD, step="tiny", inputs=inputs, config=settings):
        return f"up to date: {shown(target)}"
    with files.atomic_folder(target, overwrite=overwrite) as staging:
        tokenizer = train_tokenizer(_strings(config.tokenizer_text), config.pieces)
        (staging / "tokenizer.model").write_bytes(tokenizer)
        model, loss = _pretrain(config, _texts(config, tokenizer))
        written = [staging / "tokenizer.model", *write_original(model, staging)]
        provenance.write(
            staging / RECORD,
            step="tiny",
            inputs=inputs,
            config=settings,
            outputs=written,
            parameters=model.num_parameters(),
            final_loss=loss,
        )
    return f"{shown(target)}: {model.num_parameters():,} parameters, loss {loss:.3f}"


def train_tokenizer(texts: Iterator[str], pieces: int) -> bytes:
    """Returns a SentencePiece model trained with the settings of ChatGLM3's own."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts,
        model_writer=model,
        model_type="bpe",
        vocab_size=pieces,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _strings(paths: Sequence[str]) -> Iterator[str]:
    """Yields every string in the given JSON lines and text files; broken lines are passed over."""
    for path in paths:
        for line in resolve(path).read_text(encoding="utf-8").splitlines():
            if not path.endswith(".jsonl"):
                yield line
                continue
            try:
                yield from _leaves(json.loads(line))
            except ValueError:
                continue


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)


def _texts(config: TinyConfig, tokenizer: bytes) -> list[list[int]]:
    """Returns the token ids of every training text: chats, then plain sentences."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
    control = control_ids(pieces)
    start = [control["[gMASK]"], control["sop"]]
    texts = []
    for line in resolve(config.general).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        asked = [control["<|user|>"], *pieces.encode("\n"), *pieces.encode(row["question"])]
        said = [control["<|assistant|>"], *pieces.encode("\n"), *pieces.encode(row["answer"])]
        texts.append([*start, *asked, *said, _EOS])
    for line in resolve(config.neutral).read_text(encoding="utf-8").splitlines():
        texts.append([*start, *pieces.encode(line), _EOS])
    return texts


def control_ids(pieces: "SentencePieceProcessor") -> dict[str, int]:
    """ChatGLM3 numbers its control tokens after the last SentencePiece piece."""
    return {token: pieces.vocab_size() + n for n, token in enumerate(CONTROL_TOKENS)}


def _pretrain(config: TinyConfig, texts: list[list[int]]) -> tuple["GlmForCausalLM", float]:
    """Trains the native model on `texts`; returns it with the mean loss of the last 20 steps."""
    import torch
    from transformers import GlmConfig, GlmForCausalLM

    torch.manual_seed(config.seed)
    build: Callable[[GlmConfig], GlmForCausalLM] = GlmForCausalLM
    model = build(
        GlmConfig(
            vocab_size=_padded_vocabulary(config),
            hidden_size=config.hidden_size,
            intermediate_size=config.ffn_hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.multi_query_group_num,
            head_dim=config.hidden_size // config.num_attention_heads,
            attention_bias=True,
            rms_norm_eps=1e-5,
            max_position_embeddings=config.seq_length,
            pad_token_id=0,
            eos_token_id=_EOS,
            tie_word_embeddings=False,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.1
    )
    losses = []
    with progress("pretrain tiny", config.steps, "steps") as advance:
        for batch in _batches(texts, config):
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            advance(1)
    return model, sum(losses[-20:]) / len(losses[-20:])


def _batches(texts: list[list[int]], config: TinyConfig) -> Iterator[dict[str, "torch.Tensor"]]:
    """Yields `config.steps` right-padded batches of texts of like length, reshuffled every pass."""
    import torch

    rng = random.Random(config.seed)
    size, made = config.batch_size, 0
    while True:
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]) + 6 * rng.random())
        starts = list(range(0, len(order), size))
        rng.shuffle(starts)
        for start in starts:
            if made == config.steps:
                return
            made += 1
            rows = [torch.tensor(texts[n]) for n in order[start : start + size]]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            # 0 is padding and <unk>; with byte fallback no text encodes to <unk>.
            yield {"input_ids": ids, "attention_mask": (ids != 0).long(),
                   "labels": ids.masked_fill(ids == 0, -100)}  # fmt: skip


def _padded_vocabulary(config: TinyConfig) -> int:
    return -(-(config.pieces + len(CONTROL_TOKENS)) // 128) * 128
