"""The guard's notices as parts of an answer.

They are part of the content, so that every client shows them, and each knows what it is, so that
the page can set them apart. The blank lines between belong to the notices.
"""

from collections.abc import Sequence

from medqa.serve.guard import Guard, Notices
from medqa.serve.intake import Chat
from medqa.serve.protocol import Part

Parts = list[tuple[Part, str]]
_BETWEEN = "\n\n"


def read(chat: Chat, guard: Guard | None) -> tuple[Notices, list[dict[str, str]]]:
    """Returns what belongs beside the answer to a chat, and the chat for the model to read."""
    if guard is None:
        return Notices((), ()), chat.messages
    return guard.notices(chat.questions), own_words(chat.messages, guard)


def before(around: Notices) -> Parts:
    """Returns the parts that stand before an answer."""
    return [(notice.part, notice.text + _BETWEEN) for notice in around.before]


def after(around: Notices) -> Parts:
    """Returns the parts that stand after an answer."""
    return [(notice.part, _BETWEEN + notice.text) for notice in around.after]


def own_words(messages: Sequence[dict[str, str]], guard: Guard) -> list[dict[str, str]]:
    """Returns a chat with the notices taken out of the answers in it.

    Clients send an answer back as they got it. The model was trained on answers without notices,
    and would learn from the chat to write some of its own.
    """
    found, questions = [], []
    for message in messages:
        if message["role"] == "user":
            questions.append(message["content"])
        elif message["role"] == "assistant":
            around = guard.notices(questions)
            content = message["content"].removeprefix(_joined(before(around)))
            message = message | {"content": content.removesuffix(_joined(after(around)))}
        found.append(message)
    return found


def labelled(parts: Parts) -> dict[str, list[dict[str, str]]]:
    """Returns parts as the field ``medqa`` of a whole answer."""
    return {"parts": [{"part": part, "text": text} for part, text in parts]}


def _joined(parts: Parts) -> str:
    return "".join(text for _, text in parts)
