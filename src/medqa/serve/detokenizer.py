"""An answer's tokens as text while they come."""

import re
from collections.abc import Sequence
from typing import Any

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Detokenizer:
    """Turns tokens into text piece by piece; the pieces joined are the whole answer decoded.

    A character that the vocabulary lacks takes a token for each of its UTF-8 bytes, and whether
    they are one is known when a token of another kind follows: until then they are held back. So is
    white space, which an answer has neither before its first word nor after its last.

    A text differs from the sum of its tokens' texts (the first loses its leading space, bytes join
    into characters), so a window of tokens is decoded with and without the new ones, as vLLM does
    (``vllm/tokenizers/detokenizer_utils.py``).

    Args:
        tokenizer: A fast tokenizer with byte fallback.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._window = 0  # the text of the tokens from here on …
        self._told = 0  # … up to here is said
        self._space = ""  # white space that is said if a word follows
        self._begun = False
        self._in_bytes = False
        added = tokenizer.added_tokens_decoder
        self._control = frozenset(token for token, one in added.items() if one.special)

    def add(self, ids: Sequence[int]) -> str:
        """Returns what can be said after these tokens, perhaps nothing yet."""
        self._ids += ids
        for token in ids:
            piece = self._tokenizer.convert_ids_to_tokens(token)
            # A model has a few more ids than its tokenizer; nobody sees those, nor control tokens.
            if piece is not None and token not in self._control:
                self._in_bytes = bool(_BYTE.fullmatch(piece))
        return "" if self._in_bytes else self._stripped(self._new())

    def end(self, *, cut: bool) -> str:
        """Returns what is left at the end of the answer.

        Args:
            cut: The answer was cut; half a character at its end is left out.
        """
        rest = self._new()
        return self._stripped(rest.rstrip("\ufffd") if cut else rest)

    def _new(self) -> str:
        before = self._decoded(self._ids[self._window : self._told])
        after = self._decoded(self._ids[self._window :])
        if len(after) > len(before):
            self._window, self._told = self._told, len(self._ids)
        return after[len(before) :]

    def _stripped(self, text: str) -> str:
        text = self._space + text if self._begun else text.lstrip()
        said = text.rstrip()
        self._space = text[len(said) :]
        self._begun = self._begun or bool(said)
        return said

    def _decoded(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text
