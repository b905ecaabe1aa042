"""The part of Go's text/template that the Modelfile uses, in Python."""

import re
from collections.abc import Iterator, Mapping, Sequence

Message = Mapping[str, str]
_ACTION = re.compile(r"\{\{ (.*?) \}\}")


def render(template: str, messages: Sequence[Message]) -> str:
    """What Go writes for ``.Messages``; a construct that is not known here is an error."""
    parts = iter(_ACTION.split(template))
    tokens = [("text", next(parts))]
    for action in parts:
        tokens += [("action", action), ("text", next(parts))]
    variables: dict[str, str] = {}
    text, rest = _block(tokens, {"Messages": messages}, variables, run=True)
    assert rest == [("end of file", "")] or not rest
    return text


def _block(tokens: list, dot: Mapping, variables: dict[str, str], *, run: bool) -> tuple[str, list]:
    """Renders up to the ``end`` or ``else`` of this block, which is left in front of the rest."""
    written = ""
    while tokens:
        (kind, value), tokens = tokens[0], tokens[1:]
        if kind == "text":
            written += value if run else ""
        elif value in ("end", "else"):
            return written, [(kind, value), *tokens]
        elif value.startswith("range "):
            items = _value(value[6:], dot, variables) if run else []
            _, after = _block(tokens, {}, variables, run=False)
            assert after[0] == ("action", "end")
            for item in items:
                written += _block(tokens, _fields(item), variables, run=True)[0]
            tokens = after[1:]
        elif value.startswith("if "):
            holds = run and bool(_value(value[3:], dot, variables))
            text, tokens = _block(tokens, dot, variables, run=holds)
            if tokens[0] == ("action", "else"):
                other, tokens = _block(tokens[1:], dot, variables, run=run and not holds)
                text += other
            assert tokens[0] == ("action", "end")
            written, tokens = written + text, tokens[1:]
        elif assigned := re.fullmatch(r"(\$\w+) :?= (.+)", value):
            if run:
                variables[assigned[1]] = _value(assigned[2], dot, variables)
        elif run:
            written += _value(value, dot, variables)
    return written, tokens


def _fields(message: Message) -> Mapping[str, str]:
    return {"Role": message["role"], "Content": message["content"]}


def _value(expression: str, dot: Mapping, variables: Mapping[str, str]):
    words = list(_words(expression))
    if words[0] in ("eq", "ne"):
        left, right = (_value(word, dot, variables) for word in words[1:])
        return (left == right) is (words[0] == "eq")
    (word,) = words
    if word.startswith('"'):
        return word[1:-1]
    return variables[word] if word.startswith("$") else dot[word.removeprefix(".")]


def _words(expression: str) -> Iterator[str]:
    yield from re.findall(r'"[^"]*"|\S+', expression)
