"""ChatGLM's SentencePiece tokenizer as a fast tokenizer that needs no remote code.

Source: ``tokenization_chatglm.py`` of ChatGLM3-6B, ChatGLM2-6B and CodeGeeX2-6B. All three share
one ``tokenizer.model``; control tokens take the ids that follow its pieces.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa.errors import CheckpointError
from medqa.model.original import read_json
from medqa.model.shards import is_lfs_pointer
from medqa.paths import shown

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
PREFIX = ("[gMASK]", "sop")
SHARED_CONTROL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")

# build_chat_input encodes "{metadata}\n" and the content apart, each with SentencePiece's leading
# space: hence the space before a content, and none where the content is empty. An answer being
# generated starts with "\n", as in the training data.
CHATGLM3_TEMPLATE = """\
{{- '[gMASK]sop' -}}
{%- for message in messages -%}
{%- set role = 'observation' if message['role'] == 'tool' else message['role'] -%}
{%- if role not in ['system', 'user', 'assistant', 'observation'] -%}
{{- raise_exception('unknown role: ' ~ role) -}}
{%- endif -%}
{%- set content = message['content'] or '' -%}
{%- if role == 'system' and message['tools'] -%}
{%- set content = content ~ '\\n' ~ (message['tools'] | tojson(indent=4)) -%}
{%- endif -%}
{{- '<|' ~ role ~ '|>' ~ (message['metadata'] or '') ~ '\\n' -}}
{%- if content -%}{{- ' ' ~ content -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""

# build_prompt of ChatGLM2-6B; it knows no system message, so one opens the first question.
CHATGLM2_TEMPLATE = """\
{{- '[gMASK]sop' -}}
{%- set state = namespace(round=0, system='') -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- set state.system = message['content'] ~ '\\n\\n' -%}
{%- elif message['role'] == 'user' -%}
{%- set state.round = state.round + 1 -%}
{{- '[Round ' ~ state.round ~ ']\\n\\n问：' ~ state.system ~ message['content'] ~ '\\n\\n答：' -}}
{%- set state.system = '' -%}
{%- elif message['role'] == 'assistant' -%}
{{- message['content'] ~ '\\n\\n' -}}
{%- else -%}
{{- raise_exception('unknown role: ' ~ message['role']) -}}
{%- endif -%}
{%- endfor -%}
"""


@dataclass(frozen=True)
class Family:
    """A generation of ChatGLM: what its tokenizer and its chat look like.

    Attributes:
        name: ``chatglm3``, ``chatglm2`` or ``codegeex2``.
        control: The tokens after the pieces, in the order of their ids.
        stops: The tokens at which an answer ends.
        template: The chat template; None for a model that does not chat.
        interpolated: What ``rope_ratio`` means, see `glm_config.write_config`.
    """

    name: str
    control: tuple[str, ...]
    stops: tuple[str, ...]
    template: str | None
    interpolated: bool


CHATGLM3 = Family(
    "chatglm3",
    (*SHARED_CONTROL, *ROLES),
    (EOS, "<|user|>", "<|observation|>"),
    CHATGLM3_TEMPLATE,
    interpolated=False,
)
CHATGLM2 = Family("chatglm2", SHARED_CONTROL, (EOS,), CHATGLM2_TEMPLATE, interpolated=True)
CODEGEEX2 = Family("codegeex2", SHARED_CONTROL, (EOS,), None, interpolated=True)


def family(folder: Path, origin: str) -> Family:
    """Says which ChatGLM this is; the three do not differ in ``model_type`` or architecture.

    What speaks first counts: the model's name in ``config.json``, ``tokenizer_config.json`` or
    `origin`; then its tokenizer code (read as text, never run), which names ``<|user|>`` from
    ChatGLM3 on. A folder without any of these is a ChatGLM3.
    """
    names = [origin]
    for file, key in (("config.json", "_name_or_path"), ("tokenizer_config.json", "name_or_path")):
        if (folder / file).is_file():
            names.append(str(read_json(folder / file).get(key, "")))
    for known in (CODEGEEX2, CHATGLM2, CHATGLM3):
        if any(known.name in name.lower() for name in names):
            return known
    code = folder / "tokenization_chatglm.py"
    if code.is_file() and "<|user|>" not in code.read_text("utf-8", errors="replace"):
        return CHATGLM2
    return CHATGLM3


def sentencepiece(file: Path) -> "SentencePieceProcessor":
    """Opens a ``tokenizer.model``.

    Raises:
        CheckpointError: It is no SentencePiece model.
    """
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(file.read_bytes())
    except RuntimeError:
        cure = "download it again (GLM-4 has another kind; use its -hf checkpoint instead)"
        if is_lfs_pointer(file):
            cure = "it is a Git LFS pointer; run: git lfs pull"
        raise CheckpointError(f"{shown(file)} is not a SentencePiece model; {cure}") from None
    return processor


def control_ids(pieces: "SentencePieceProcessor", kind: Family) -> dict[str, int]:
    """Returns the control tokens' ids, ``</s>`` included."""
    first = pieces.get_piece_size()
    return {EOS: pieces.eos_id()} | {token: first + n for n, token in enumerate(kind.control)}


def write_tokenizer(
    pieces: "SentencePieceProcessor", kind: Family, folder: Path, max_length: int
) -> None:
    """Writes ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.jinja``.

    Args:
        pieces: The original tokenizer.
        kind: Decides control tokens and chat template.
        folder: The folder to write into.
        max_length: The longest sequence in tokens.
    """
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_fast(pieces, kind),
        unk_token=UNK,
        pad_token=UNK,
        eos_token=EOS,
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.chat_template = kind.template
    fast.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    # transformers 5 writes a class name of its own; this one every version knows.
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _fast(pieces: "SentencePieceProcessor", kind: Family) -> "Tokenizer":
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    vocab = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    model = models.BPE(vocab=vocab, merges=merges(pieces), unk_token=UNK, byte_fallback=True)
    fast = Tokenizer(model)
    fast.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    fast.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    # "sop" and "eop" would be found inside "people"; as whole words they are not.
    fast.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, single_word=token.isalpha())
            for token in (UNK, BOS, EOS, *kind.control)
        ]
    )
    prefix = " ".join(PREFIX)
    fast.post_processor = processors.TemplateProcessing(
        single=f"{prefix} $A",
        pair=f"{prefix} $A $B:1 {EOS}:1",
        special_tokens=[(t, fast.token_to_id(t)) for t in (*PREFIX, EOS)],
    )
    return fast


def merges(pieces: "SentencePieceProcessor") -> list[tuple[str, str]]:
    """Returns the BPE merges that SentencePiece's pieces imply, best first.

    SentencePiece joins the neighbours whose union is the piece with the highest score; so every
    way to cut a piece into two pieces is a merge, ranked by the score of the whole.
    """
    scores = {
        pieces.id_to_piece(i): pieces.get_score(i)
        for i in range(pieces.get_piece_size())
        if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i))
        and not pieces.is_unused(i)
    }
    ranked = sorted(scores, key=lambda piece: -scores[piece])
    return [
        (piece[:cut], piece[cut:])
        for piece in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
