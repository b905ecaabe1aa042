"""ChatGLM3's chat format, in which the users' words never become control tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from medqa.errors import CheckpointError

ROLES = ("system", "user", "assistant")


class ChatFormat:
    """Turns a chat into the model's tokens, as LLaMA-Factory's template ``chatglm3`` does.

    It is also what the tokenizer's own chat template says, but for text such as ``<|user|>``, which
    stays text here.

    Args:
        tokenizer: Of an imported ChatGLM3.
        origin: Where it is from, for the error.

    Raises:
        CheckpointError: The tokenizer does not know ChatGLM3's roles.
    """

    def __init__(self, tokenizer: Any, origin: str) -> None:
        self._tokenizer = tokenizer
        known = tokenizer.get_vocab()
        control = ("[gMASK]", "sop", *(f"<|{role}|>" for role in ROLES))
        if absent := [token for token in control if token not in known]:
            raise CheckpointError(
                f"the tokenizer of {origin} has no {absent[0]}: expected an imported ChatGLM3; "
                "run: python scripts/import_model.py"
            )
        self._opening = [known["[gMASK]"], known["sop"]]
        self._role = {role: known[f"<|{role}|>"] for role in ROLES}
        self._newline = self._ids("\n")

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the prompt to which the assistant's answer is the continuation.

        Args:
            messages: ``{"role": …, "content": …}`` each; the role is one of `ROLES`.
        """
        prompt = list(self._opening)
        for message in messages:
            role = self._role[message["role"]]
            prompt += [role, *self._newline, *self._ids(message["content"])]
        return [*prompt, self._role["assistant"]]

    def _ids(self, text: str) -> list[int]:
        # An empty text is no text: the tokenizer would give it a leading space of its own.
        if not text:
            return []
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        ids: list[int] = encoded["input_ids"]
        return ids
