"""The chats of the parity check, as token ids."""

from pathlib import Path

from medqa.export.battery import CHATS, encoded

ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


def test_ids_are_the_chat_templates_but_for_text_that_looks_like_control_tokens(
    project: Path,
) -> None:
    from transformers import AutoTokenizer

    folder = project / "models/tiny"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    differing = []
    for chat, ids in zip(CHATS, encoded(folder), strict=True):
        by_template = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_dict=False
        )
        if ids != by_template:
            differing.append(chat)
        controls = [i for i in ids if i in tokenizer.convert_tokens_to_ids(list(ROLES))]
        assert len(controls) == len(chat) + 1
    assert [chat for chat in CHATS if "<|user|>" in chat[-1]["content"]] == differing


def test_it_asks_enough() -> None:
    assert len(CHATS) == 16
    assert len({str(chat) for chat in CHATS}) == 16
    assert max(len(chat) for chat in CHATS) >= 4
    assert max(len(chat[-1]["content"]) for chat in CHATS) > 120
