"""What goes along with a model that is made of another: tokenizer, licences, model card."""

import re
import shutil
from pathlib import Path

_TEXTS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
_LICENCES = re.compile(r"(MODEL_LICENSE|LICENSE|NOTICE).*")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def take_texts(source: Path, staging: Path) -> None:
    """Puts tokenizer, chat template and generation settings of `source` in place of `staging`'s.

    Libraries that save a model change the list of special tokens and may change the settings;
    merging and quantising change neither.
    """
    for name in _TEXTS:
        (staging / name).unlink(missing_ok=True)
        if (source / name).is_file():
            shutil.copyfile(source / name, staging / name)


def accompany(source: Path, staging: Path, *, zh: str, en: str) -> None:
    """Copies licences and model cards, with a note on top of what the card was not measured on.

    Args:
        source: The exported model.
        staging: Where to.
        zh: What this folder holds, in Chinese.
        en: The same in English.
    """
    for file in source.iterdir():
        if _LICENCES.fullmatch(file.name):
            shutil.copyfile(file, staging / file.name)
    note = (
        f"> {zh}以下数字都是转换之前的模型的。\n>\n"
        f"> {en} All figures below are of the model before.\n"
    )
    for card in source.glob("README*.md"):
        text = card.read_text(encoding="utf-8")
        front = _FRONT_MATTER.match(text)
        head = front.group() if front else ""
        body = text[len(head) :].lstrip()
        (staging / card.name).write_text(f"{head}\n{note}\n{body}", encoding="utf-8")
