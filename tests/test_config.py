"""Everything that is wrong with a YAML is said at once, and nothing wrong gets through."""

import dataclasses
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel

from medqa import config
from medqa.config import Strict
from medqa.errors import ConfigError, MissingInputError


class Source(Strict):
    path: str
    weight: float = 1.0


class Replay(Strict):
    share: float
    sources: tuple[Source, ...] = ()


class Settings(Strict):
    name: str
    seed: int
    test_share: float = 0.1
    sources: tuple[Source, ...] = ()
    replay: Replay | None = None


Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))

    def to_file(text: str | bytes) -> Path:
        file = tmp_path / "configs" / "a.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return to_file


def problems(file: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        config.load(file, overrides, Settings)
    assert str(error.value).startswith("configs/a.yaml: ")
    return error.value.problems


GOOD = "name: demo\nseed: 42\n"
FULL = GOOD + "sources:\n  - {path: a.jsonl}\nreplay:\n  share: 0.25\n"


def test_a_good_one(write: Write) -> None:
    found = config.load(write(FULL), [], Settings)
    assert found.model_dump() == {
        "name": "demo",
        "seed": 42,
        "test_share": 0.1,
        "sources": ({"path": "a.jsonl", "weight": 1.0},),
        "replay": {"share": 0.25, "sources": ()},
    }
    with pytest.raises(ValueError, match="frozen"):
        found.seed = 1


def test_every_unknown_key_at_once_with_the_nearest(write: Write) -> None:
    text = FULL.replace("seed", "sed").replace("share", "shara") + "tst_share: 0.2\nzzzzz: 1\n"
    text = text.replace("path", "pth")
    found = problems(write(text))
    assert sorted(found) == [
        "missing key 'replay.share'",
        "missing key 'seed'",
        "missing key 'sources.0.path'",
        "unknown key 'replay.shara'; did you mean 'share'?",
        "unknown key 'sed'; did you mean 'seed'?",
        "unknown key 'sources.0.pth'; did you mean 'path'?",
        "unknown key 'tst_share'; did you mean 'test_share'?",
        "unknown key 'zzzzz'",
    ]


def test_all_kinds_of_problem_at_once(write: Write) -> None:
    found = problems(write("seed: many\nsources: 3\nname: [a]\nnmae: x\n"))
    assert len(found) == 4
    assert "seed: input should be a valid integer" in found[1]
    assert "found 'many'" in found[1]
    assert found[2].startswith("sources: input should be a valid tuple, found 3")


def test_values_do_not_change_their_kind(write: Write) -> None:
    assert problems(write("name: 3\nseed: 42\n"))[0].startswith("name: input should be a valid str")
    assert problems(write("name: a\nseed: 1.5\n"))[0].startswith("seed: ")
    assert problems(write("name: a\nseed:\n"))[0].endswith("found None")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nseed: 1\nname: b\n", "key 'name' is given twice in .*line 3"),
        ("name: a\nreplay: {share: 1, share: 2}\n", "key 'share' is given twice"),
        ("", "expected 'key: value' lines, found nothing"),
        ("# only a comment\n", "found nothing"),
        ("- a\n- b\n", "expected 'key: value' lines, found a list"),
        ("just words\n", "found a str"),
        ("name: [a\nseed: 1\n", "line 2"),
        ("name: a\n\tseed: 1\n", "found character"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        (b"name: \xff\xfe\n", "not UTF-8 text"),
        ("name: 感冒\n".encode("gb18030"), "not UTF-8 text"),
        (b"name: \x00\n", "special characters are not allowed"),
        ("? [a, b]\n: 1\n", "unhashable key"),
        ("? {a: 1}\n: 1\n", "unhashable key"),
        ("name: 2024-99-99\n", "month must be in"),
        ("seed: !!int x\n", "invalid literal"),
        ("name: !!python/object/apply:os.system [true]\n", "could not determine a constructor"),
    ],
)
def test_what_is_no_yaml_of_ours(write: Write, text: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        config.read_yaml(write(text))
    assert str(error.value).startswith("configs/a.yaml: ")
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_and_windows_line_ends(write: Write) -> None:
    file = write(b"\xef\xbb\xbfname: demo\r\nseed: 42\r\n")
    assert config.read_yaml(file) == {"name": "demo", "seed": 42}


def test_an_alias_is_no_duplicate(write: Write) -> None:
    text = "base: &b {path: x}\nmore: {<<: *b, path: y}\n"
    assert config.read_yaml(write(text))["more"] == {"path": "y"}


def test_keys_that_are_no_strings(write: Write) -> None:
    assert len(problems(write(GOOD + "2: x\nyes: y\n"))) == 2


def test_an_absent_file_lists_what_is_there(write: Write) -> None:
    write(GOOD)
    with pytest.raises(MissingInputError, match=r"configs/b.yaml does not exist; found: a\.yaml$"):
        config.load("configs/b.yaml", [], Settings)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", "seed", 7),
        ("test_share=1e-4", "test_share", 1e-4),
        ("test_share=1.0e-4", "test_share", 1e-4),
        ("test_share=1", "test_share", 1.0),
        ("name=a=b", "name", "a=b"),
        ("name='3'", "name", "3"),
        ("name=", "name", None),
        ("replay.share=0.5", "replay.share", 0.5),
        ("replay=null", "replay", None),
        ("replay={share: 0.5}", "replay.share", 0.5),
        ("sources=[{path: b.jsonl, weight: 2e0}]", "sources.0.weight", 2.0),
    ],
)
def test_overrides(write: Write, override: str, path: str, value: Any) -> None:
    if value is None and path == "name":
        assert problems(write(FULL), override)[0].startswith("name: input should be a valid string")
        return
    found: Any = config.load(write(FULL), [override], Settings)
    for part in path.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_overrides_make_what_is_not_there(write: Write) -> None:
    found = config.load(write(GOOD), ["replay.share=0.5", "seed=1", "seed=2"], Settings)
    assert found.replay == Replay(share=0.5)
    assert found.seed == 2, "the last one wins"


def test_wrong_overrides_are_all_reported(write: Write) -> None:
    found = problems(
        write(FULL), "seed", "=1", "name.inner=1", "sources.path=1", "seed=[", "name=2024-99-99"
    )
    assert found == [
        "override 'seed' is not key=value",
        "override '=1' is not key=value",
        "override 'name.inner': 'name' holds a str, no keys",
        "override 'sources.path': 'sources' holds a list, no keys",
        "override 'seed=[': the value is not YAML",
        "override 'name=2024-99-99': the value is not YAML",
    ]


def test_a_misspelt_override_is_an_unknown_key(write: Write) -> None:
    assert problems(write(GOOD), "sede=1", "replay.share=1", "replay.shra=1") == [
        "unknown key 'replay.shra'; did you mean 'share'?",
        "unknown key 'sede'; did you mean 'seed'?",
    ]


def test_nearest() -> None:
    assert config.nearest("lerning_rate", ["learning_rate", "seed"]) == (
        "; did you mean 'learning_rate'?"
    )
    assert config.nearest("x", ["learning_rate"]) == ""


def test_llamafactory_yaml(write: Write) -> None:
    file = write("learning_rate: 1e-4\nlora_rank: 8\ndataset: [a, b]\nfinetuning_type: lora\n")
    overrides = ["bf16=true", "eval_steps=0.1", "eval_strategy=no"]
    found = config.load_llamafactory(file, overrides, "train")
    assert found == {
        "eval_strategy": "no",  # a bare no is false to YAML 1.1
        "learning_rate": 1e-4,
        "lora_rank": 8,
        "dataset": ["a", "b"],
        "finetuning_type": "lora",
        "bf16": True,
        "eval_steps": 0.1,
    }
    assert type(found["learning_rate"]) is float


def test_llamafactory_problems(write: Write) -> None:
    file = write("lerning_rate: 1e-4\nlora_rank: eight\nfinetuning_type: lola\nbf16: maybe\n")
    with pytest.raises(ConfigError) as error:
        config.load_llamafactory(file, [], "train")
    found = sorted(error.value.problems)
    assert len(found) == 4
    assert found[0].startswith("bf16: ")
    assert found[1].startswith("finetuning_type: input should be 'lora', 'oft', 'freeze' or 'full'")
    assert found[2].startswith("lora_rank: ")
    assert found[3] == "unknown key 'lerning_rate'; did you mean 'learning_rate'?"


def test_chat_takes_no_training_key(write: Write) -> None:
    with pytest.raises(ConfigError, match="unknown key 'learning_rate'"):
        config.load_llamafactory(write("learning_rate: 1e-4\n"), [], "infer")


def test_an_absent_package_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="llamafactory is not installed; run: make install"):
        config.llamafactory_schema("train")


def claimed(schema: type[BaseModel]) -> dict[str, set[Any]]:
    return {name: kinds(field.annotation) for name, field in schema.model_fields.items()}


def kinds(hint: Any) -> set[Any]:
    """Returns the members of a union, choices as their values; empty for Any."""
    if hint is Any:
        return set()
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*(kinds(part) for part in get_args(hint)))
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    return {hint}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("purpose", ["train", "infer"])
def test_the_schema_is_llamafactorys_own(purpose: Literal["train", "infer"]) -> None:
    """Against the dataclasses themselves: the same names, and no claimed type that is not so."""
    from llamafactory.hparams import parser

    classes = {"train": parser._TRAIN_ARGS, "infer": parser._INFER_ARGS}[purpose]
    real: dict[str, set[Any]] = {}
    for cls in classes:
        hints = {}
        for base in reversed(cls.__mro__):
            names = vars(sys.modules[base.__module__])
            hints |= get_type_hints(base, globalns=names) if base is not object else {}
        real |= {f.name: kinds(hints[f.name]) for f in dataclasses.fields(cls) if f.init}
    ours = claimed(config.llamafactory_schema(purpose))
    assert sorted(ours) == sorted(real)
    wrong = {
        name: (ours[name], real[name]) for name in ours if ours[name] not in (set(), real[name])
    }
    assert not wrong
    simple = {int, float, bool, type(None)}
    unclaimed = {
        name
        for name, hint in real.items()
        if not ours[name] and (hint <= simple or all(isinstance(h, str) for h in hint - simple))
    }
    assert not unclaimed, "numbers, switches and choices are all checked"
