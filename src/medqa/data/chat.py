"""A pair in ChatGLM3's chat format, as LLaMA-Factory's template ``chatglm3`` encodes it.

    [gMASK]sop<|user|>␤ question <|assistant|>␤ answer </s>

The texts between the control tokens are encoded one by one (``llamafactory/data/template.py`` and
``data/processor/supervised.py``, 0.9.5), names of control tokens in them as plain text
(``split_special_tokens: true`` in our recipes). Only the answer and ``</s>`` are trained.

Written anew here because the data room does without torch and transformers; a test holds it equal
to the original.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medqa.errors import CheckpointError
from medqa.paths import shown

OPENING = ("[gMASK]", "sop", "<|user|>")
TURN = "<|assistant|>"
END = "</s>"
TOKENIZER = "tokenizer.json"
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Encoded:
    """A pair as token ids, and where in its text each token ends.

    Attributes:
        prompt: Ids up to and with ``<|assistant|>``.
        answer: Ids of the answer, without ``</s>``.
        question_ends: Character of the question at which each of the prompt's tokens ends; 0
            for those before it, its length for those behind.
        answer_ends: The same for the answer.
    """

    prompt: list[int]
    answer: list[int]
    question_ends: list[int]
    answer_ends: list[int]

    @property
    def length(self) -> int:
        """Tokens of the whole row, ``</s>`` included."""
        return len(self.prompt) + len(self.answer) + 1


class Chat:
    """Encodes pairs with the tokenizer of a model folder."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        file = folder / TOKENIZER
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(
                f"{shown(file)} is no tokenizer: {error}; import the model again"
            ) from None
        self._tokenizer.encode_special_tokens = True
        ids = {name: self._tokenizer.token_to_id(name) for name in (*OPENING, TURN, END)}
        absent = [name for name, number in ids.items() if number is None]
        if absent:
            raise CheckpointError(f"{shown(file)} has no {', '.join(absent)}: not ChatGLM3's")
        self._opening = [ids[name] for name in OPENING]
        self._turn, self.end = ids[TURN], ids[END]
        self._line = self._encode(["\n"])[0].ids

    def encode(self, question: str, answer: str) -> Encoded:
        """Returns the pair in the chat format."""
        asked, said = self._encode([question, answer])
        before = len(self._opening) + len(self._line)
        return Encoded(
            prompt=[*self._opening, *self._line, *asked.ids, self._turn],
            answer=[*self._line, *said.ids],
            question_ends=[0] * before + [end for _, end in asked.offsets] + [len(question)],
            answer_ends=[0] * len(self._line) + [end for _, end in said.offsets],
        )

    def lengths(
        self, questions: Sequence[str], answers: Sequence[str]
    ) -> tuple[list[int], list[int]]:
        """Returns the tokens of every prompt and of every answer (without ``</s>``)."""
        prompt = len(self._opening) + len(self._line) + 1
        return (
            [prompt + n for n in self.counts(questions)],
            [len(self._line) + n for n in self.counts(answers)],
        )

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Returns the tokens of every text, as it stands."""
        return [
            len(found)
            for start in range(0, len(texts), BATCH)  # the encodings of all would be gigabytes
            for found in self._encode(texts[start : start + BATCH])
        ]

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        return list(self._tokenizer.encode_batch(list(texts), add_special_tokens=False))


def how_to_get(tokenizer: str) -> str:
    """Returns what is missing where `tokenizer` is no model folder, and the command for it."""
    known = {"models/chatglm3-6b": "make model", "models/tiny": "make demo"}
    command = known.get(tokenizer, f"python scripts/import_model.py ORIGINAL {tokenizer}")
    return f"no {TOKENIZER} in {tokenizer}; run: {command}"


def kept(prompt: int, answer: int, cutoff_len: int) -> tuple[int, int]:
    """Returns how many tokens of prompt and answer a training with `cutoff_len` reads.

    As ``infer_seqlen`` in ``llamafactory/data/processor/processor_utils.py``, 0.9.5, one place of
    `cutoff_len` being ``</s>``'s.
    """
    room = cutoff_len - 1
    if answer * 2 < room:
        most = room
    elif prompt * 2 < room:
        most = room - prompt
    else:
        most = int(room * (answer / (prompt + answer)))
    of_answer = min(most, answer)
    return min(max(room - of_answer, 0), prompt), of_answer
