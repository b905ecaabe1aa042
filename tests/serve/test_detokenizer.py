"""Pieces of an answer are whole characters, and together the answer."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medqa.serve.detokenizer import Detokenizer

TEXTS = [
    "华法林的禁忌：孕妇和有出血倾向者禁用。",
    "一天 2 片, twice a day.\n\n1. 饭后  服用；\n2. 忌酒 ",
    "生僻字：𠮷野家、龘、㔾、𪚥。表情😀👨‍👩‍👧‍👦🇨🇳，结束",
    "😀",
    "\n 前后有空白 \n\n ",
    "\ufffd 是一个字符\ufffd",
    "",
]


def pieces(tokenizer: Any, ids: list[int], sizes: list[int], *, cut: bool = False) -> list[str]:
    text, found, start = Detokenizer(tokenizer), [], 0
    for size in sizes:
        if part := ids[start : start + size]:
            found.append(text.add(part))
        start += size
    if rest := ids[start:]:
        found.append(text.add(rest))
    return [*found, text.end(cut=cut)]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_the_answer(real_tokenizer: Any, text: str) -> None:
    ids = real_tokenizer(text, add_special_tokens=False)["input_ids"] + [2]
    found = pieces(real_tokenizer, ids, [1] * len(ids))
    assert "".join(found) == text.strip()
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in found)


def test_a_piece_comes_as_soon_as_it_is_whole(real_tokenizer: Any) -> None:
    ids = real_tokenizer("感冒𠮷，多喝水", add_special_tokens=False)["input_ids"]
    found = pieces(real_tokenizer, ids, [1] * len(ids))
    # That the four bytes of the rare character are not five, the comma says.
    assert [piece for piece in found if piece] == ["感冒", "𠮷，", "多", "喝水"]


def test_half_a_character_at_the_cut_is_left_out(real_tokenizer: Any) -> None:
    ids = real_tokenizer("好𠮷", add_special_tokens=False)["input_ids"][:-1]
    assert real_tokenizer.decode(ids) == "好\ufffd\ufffd\ufffd"
    assert "".join(pieces(real_tokenizer, ids, [1] * len(ids), cut=True)) == "好"
    assert "".join(pieces(real_tokenizer, ids, [1] * len(ids))) == "好\ufffd\ufffd\ufffd"


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32))
def test_whatever_the_tokens_the_pieces_are_what_they_decode_to(
    real_tokenizer: Any, seed: int
) -> None:
    """Bytes that are no character, control tokens and ids beyond the vocabulary among them."""
    rng = random.Random(seed)
    kinds = [range(3, 259), range(64789, 64798), range(64798, 65024), range(259, 64789), [30910, 2]]
    ids = [rng.choice(rng.choices(kinds, [6, 1, 1, 8, 3])[0]) for _ in range(rng.randrange(1, 30))]
    sizes = [rng.randrange(1, 5) for _ in ids]
    whole = real_tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert "".join(pieces(real_tokenizer, ids, sizes)) == whole
