"""What a request may say, and what is said about one that may not."""

import json

import pytest

from medqa.serve.protocol import ChatRequest, read_request
from medqa.serve.refusal import Refusal

ASKED = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}


def refusal(body: bytes | dict) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_request(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "empty"),
        (b"{", "JSON"),
        (b"\xff", "UTF-8"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b"{'a': 1}", "JSON"),
        (b'{"a": NaN}', "JSON"),
        (b'{"a": 1e999}', "JSON"),
        (b"1" * 5000, "JSON"),
        (b'"\\ud800"', "surrogate"),
        (b'"\x01"', "control character"),
        (b"[" * 100_000, "JSON"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "JSON"),
        (b'{"model": "a", "model": "b"}', "twice: 'model'"),
        (b'{"a": {"\\u0062": 1, "b": 2}}', "twice: 'b'"),
        (b"[]", "expected an object"),
        (b"null", "expected an object"),
        (b'"text"', "expected an object"),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes, told: str) -> None:
    assert told in refusal(body).message


@pytest.mark.parametrize(
    ("change", "param", "told"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": "x"}, "messages", "valid list"),
        ({"messages": [None]}, "messages.0", "expected an object"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "expected text"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "expected text"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "expected text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content",
            "expected text",
        ),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role", "'assistant'"),
        ({"messages": [{"role": "User", "content": "a"}]}, "messages.0.role", "'user'"),
        ({"messages": [{"role": "<|user|>", "content": ""}]}, "messages.0.role", "'user'"),
        ({"model": 5}, "model", "string"),
        ({"max_tokens": 0}, "max_tokens", "greater"),
        ({"max_tokens": 1.5}, "max_tokens", "integer"),
        ({"max_tokens": "5"}, "max_tokens", "integer"),
        ({"max_tokens": True}, "max_tokens", "integer"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, None, "send one"),
        ({"max_token": 5}, "max_token", "did you mean 'max_tokens'?"),
        ({"temperature": -1}, "temperature", "greater"),
        ({"temperature": 2.1}, "temperature", "less"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "greater"),
        ({"seed": 2**63}, "seed", "less"),
        ({"stream": "yes"}, "stream", "boolean"),
        ({"stream_options": {"include_usage": True}}, None, "stream: true"),
        ({"n": 2}, "n", "not supported"),
        ({"stop": ["。"]}, "stop", "not supported"),
        ({"logprobs": True}, "logprobs", "not supported"),
        ({"tools": []}, "tools", "not supported"),
        ({"functions": [{}]}, "functions", "not supported"),
        ({"tool_choice": "auto"}, "tool_choice", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty", "not supported"),
        ({"logit_bias": {"5": 100}}, "logit_bias", "not supported"),
        ({"modalities": ["text", "audio"]}, "modalities", "not supported"),
    ],
)
def test_what_would_change_an_answer_is_not_dropped_without_a_word(
    change: dict, param: str | None, told: str
) -> None:
    found = refusal(ASKED | change)
    assert found.param == param
    assert told in found.message


def test_all_problems_are_named_and_no_value_is_shown() -> None:
    found = refusal({"messages": [{"role": "tool", "content": "秘密"}], "n": "秘密", "top": "秘密"})
    for name in ("model", "messages.0.role", "n", "top"):
        assert f"{name}: " in found.message
    assert "秘密" not in found.message


def test_a_thousand_problems_make_a_short_message() -> None:
    found = refusal(ASKED | {"messages": [{"role": "x" * 1000, "content": "a"}] * 1000})
    assert "and 995 more" in found.message
    assert len(found.message) < 1000


def test_what_clients_send_without_meaning_anything_is_taken() -> None:
    given = ASKED | {
        "messages": [
            {"role": "developer", "content": "简短"},
            {
                "role": "user",
                "content": [{"type": "text", "text": word} for word in "一二"],
            },
            # What the openai package sends back of an answer of ours.
            {
                "role": "assistant",
                "content": "好",
                "refusal": None,
                "tool_calls": None,
                "function_call": None,
                "audio": None,
                "annotations": None,
            },
            {"role": "user", "content": "三"},
        ],
        "user": "u1",
        "seed": 1,
        "metadata": {"a": "b"},
        "store": False,
        "n": 1,
        "stop": None,
        "logprobs": False,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "tools": None,
        "tool_choice": "none",
        "response_format": {"type": "text"},
    }
    read = read_request(json.dumps(given).encode())
    assert [message.text for message in read.messages] == ["简短", "一\n二", "好", "三"]
    assert read.length is None


def test_numbers_mean_what_they_say() -> None:
    def read(text: str) -> ChatRequest:
        return read_request(json.dumps(ASKED).replace("{", "{" + text + ",", 1).encode())

    assert read('"max_tokens": 64.0').length == 64
    assert read('"max_tokens": 1e3').length == 1000
    assert read(f'"seed": {-(2**63)}').seed == -(2**63)
    refusal(ASKED | {"seed": -(2**64)})
