"""What goes along with a model that is made of an exported one: its licences and its model card."""

import re
import shutil
from pathlib import Path

_LICENCES = re.compile(r"(MODEL_LICENSE|LICENSE|NOTICE).*")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


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
