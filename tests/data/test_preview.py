"""Rows as the model will see them, with and without a tokenizer, whole and cut."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medqa.data.chat import Chat, kept
from medqa.data.preview import CUT, preview
from medqa.errors import CheckpointError, ConfigError, DataError, MissingInputError
from medqa.model.importer import import_model

CONFIG = "name: demo\ntokenizer: models/tiny\ncutoff_len: {cutoff}\nrules: {{unknown: 1}}\n"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A converted data set named demo with two rows; returns its folder."""
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    folder = tmp_path / "data/processed/demo"
    folder.mkdir(parents=True)
    write(folder, row("感冒吃什么药", "多喝水。\n看医生。", "a:1"), row("第二", "答", "a:2"))
    (folder / "manifest.json").write_text(json.dumps({"config": {}}), encoding="utf-8")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/demo.yaml").write_text(CONFIG.format(cutoff=20), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def imported(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "tiny"
    import_model(root / "tests/fixtures/golden", folder, dtype="keep", origin="test")
    return folder


@pytest.fixture
def tokenizer(demo: Path, imported: Path) -> Path:
    """The small tokenizer where the YAML names it."""
    return shutil.copytree(imported, demo.parents[2] / "models/tiny")


def row(question: str, answer: str, name: str, department: str = "") -> dict[str, str]:
    return {"instruction": question, "input": "", "output": answer, "id": name, "source": "a",
            "department": department, "cluster": "0"}  # fmt: skip


def write(folder: Path, *rows: Any) -> None:
    lines = [json.dumps(value, ensure_ascii=False) + "\n" for value in rows]
    (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")


def test_rows_stand_in_the_chat_format(demo: Path) -> None:
    assert preview("demo") == (
        "data/processed/demo: the first 2 training rows; trained on: ⟦ ⟧\n"
        "\n"
        "1. a:1\n"
        "[gMASK]sop<|user|>\n"
        " 感冒吃什么药<|assistant|>⟦\n"
        " 多喝水。\n"
        "看医生。</s>⟧\n"
        "\n"
        "2. a:2\n"
        "[gMASK]sop<|user|>\n"
        " 第二<|assistant|>⟦\n"
        " 答</s>⟧\n"
        "\n"
        "tokens not counted: no YAML of it names a tokenizer (a model folder)"
    )


def test_count_limits_the_rows(demo: Path) -> None:
    assert "the first 1 training rows" in preview("demo", 1)
    assert "a:2" not in preview("demo", 1)


def test_colour_marks_the_trained_part(demo: Path) -> None:
    text = preview("demo", 1, colour=True)
    assert "⟦" not in text.split("\n", 1)[1]
    assert "\x1b[32m\n 多喝水。\n看医生。" in text
    assert text.count("\x1b[0m") >= 5


def test_parquet_is_read_too(demo: Path) -> None:
    import polars as pl

    expected = preview("demo")
    pl.read_ndjson(demo / "train.jsonl").write_parquet(demo / "train.parquet")
    (demo / "train.jsonl").unlink()
    assert preview("demo") == expected


def test_control_tokens_in_a_text_are_named_as_plain(demo: Path) -> None:
    write(demo, row("<|user|>你好sop", "好", "a:1", "内科"))
    text = preview("demo")
    assert "1. a:1 · 内科 · <|user|> in the text is read as plain characters" in text
    assert "\n <|user|>你好sop<|assistant|>" in text


def test_the_terminal_is_not_obeyed(demo: Path) -> None:
    write(demo, row("\x1b[31m红\x07", "a\tb\u202e", "a:1"))
    assert "\n ⟨U+001B⟩[31m红⟨U+0007⟩<|assistant|>⟦\n a\tb⟨U+202E⟩</s>⟧" in preview("demo")


def test_without_the_tokenizer_the_command_is_said(demo: Path) -> None:
    text = preview("configs/demo.yaml")
    assert text.endswith("tokens not counted: no tokenizer.json in models/tiny; run: make demo")


def test_tokens_are_counted(demo: Path, tokenizer: Path) -> None:
    pair = Chat(tokenizer).encode("第二", "答")
    assert f"2. a:2 · {pair.length} tokens\n" in preview("configs/demo.yaml")


def test_the_cut_is_shown_where_it_is(demo: Path, tokenizer: Path) -> None:
    question, answer = "感冒吃什么药" * 3, "多喝水，早睡觉。" * 9
    write(demo, row(question, answer, "a:1"))
    pair = Chat(tokenizer).encode(question, answer)
    asked, said = kept(len(pair.prompt), len(pair.answer), 20)
    text = preview("configs/demo.yaml")
    lost = f"{len(pair.prompt) - asked} of the question, {len(pair.answer) - said} of the answer"
    assert f"{pair.length} tokens · cut at 20: {lost}" in text
    body = text.split("[gMASK]sop<|user|>\n ")[1]
    shown_question, shown_answer = body.split("<|assistant|>⟦\n ")
    assert shown_question.replace(CUT, "") == question
    assert shown_answer.split("</s>")[0].replace(CUT, "") == answer
    left = Chat(tokenizer).encode("", shown_answer.split(CUT)[0])
    assert len(left.answer) == said


def test_preferences_are_cut_as_llamafactory_cuts_them(demo: Path, tokenizer: Path) -> None:
    """Both answers where the longer is cut; the end token is not spared."""
    question, long, short = "感冒吃什么药" * 3, "多喝水，早睡觉。" * 9, "不用管。"
    names = {"input": "", "id": "a:1", "source": "a", "department": "", "cluster": "0"}
    write(demo, {"instruction": question, "chosen": short, "rejected": long, **names})
    pairs = [Chat(tokenizer).encode(question, answer) for answer in (short, long)]
    prompt, longest = len(pairs[1].prompt), len(pairs[1].answer)
    asked, said = kept(prompt, longest + 1, 21)  # held equal to it in test_kinds
    text = preview("configs/demo.yaml")
    assert f"1. a:1 · {pairs[0].length} and {pairs[1].length} tokens · cut at 20: " in text
    assert f"{prompt - asked} of the question, {longest - said} of the answer" in text
    shown_short, shown_long = text.split("chosen ⟦\n ")[1].split("rejected ⟦\n ")
    assert shown_short.startswith(f"{short}</s>⟧")
    left = Chat(tokenizer).encode("", shown_long.split(CUT)[0])
    assert 0 <= len(left.answer) - said < 3  # a character cut in its middle is shown whole


def test_text_is_shown_without_the_chat_format(demo: Path, tokenizer: Path) -> None:
    names = {"id": "a:1", "source": "a", "department": "内科", "cluster": "0"}
    write(demo, {"text": "感冒多喝水。\n早睡觉。" * 9, **names})
    count = Chat(tokenizer).counts(["感冒多喝水。\n早睡觉。" * 9])[0] + 1
    text = preview("configs/demo.yaml")
    assert f"1. a:1 · 内科 · {count} tokens\n⟦感冒多喝水。\n早睡觉。感冒" in text
    assert CUT not in text and "<|user|>" not in text


def test_a_row_that_fits_is_not_cut(demo: Path, tokenizer: Path) -> None:
    config = demo.parents[2] / "configs/demo.yaml"
    config.write_text(CONFIG.format(cutoff=4096), encoding="utf-8")
    assert CUT not in preview("configs/demo.yaml")
    assert "cut at" not in preview("configs/demo.yaml")


def test_a_name_finds_its_yaml(demo: Path, tokenizer: Path) -> None:
    folder = demo.parents[2] / "configs/data"
    folder.mkdir()
    (folder / "demo.yaml").write_text(CONFIG.format(cutoff=8), encoding="utf-8")
    assert "cut at 8" in preview("demo")


def test_what_is_not_there_is_said(demo: Path) -> None:
    with pytest.raises(MissingInputError, match=r"run: python scripts/convert\.py configs/data/x"):
        preview("x")
    with pytest.raises(MissingInputError, match=r"config configs/x\.yaml does not exist"):
        preview("configs/x.yaml")
    shutil.rmtree(demo)
    with pytest.raises(MissingInputError, match=r"run: python scripts/convert\.py configs/demo\."):
        preview("configs/demo.yaml")


@pytest.mark.parametrize("text", ["not json\n", "[]\n", '{"output": "x"}\n', "\udcff"])
def test_a_damaged_training_file_is_said(demo: Path, text: str) -> None:
    (demo / "train.jsonl").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match="does not hold the training rows"):
        preview("demo")
    (demo / "train.jsonl").unlink()
    with pytest.raises(MissingInputError, match="no training file"):
        preview("demo")


def test_a_yaml_of_something_else_is_said(demo: Path) -> None:
    config = demo.parents[2] / "configs/demo.yaml"
    config.write_text("a: 1\n", encoding="utf-8")
    with pytest.raises(DataError, match="no data YAML"):
        preview("configs/demo.yaml")
    config.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        preview("configs/demo.yaml")


def test_a_folder_with_another_tokenizer_is_said(demo: Path) -> None:
    folder = demo.parents[2] / "models/tiny"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is no tokenizer"):
        preview("configs/demo.yaml")


def script(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "scripts/preview_data.py", *arguments],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_the_script_prints_without_colour_into_a_pipe(demo: Path, root: Path) -> None:
    done = script(root, "demo", "--count", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == preview("demo", 1) + "\n"


def test_the_scripts_errors_are_one_line(demo: Path, root: Path) -> None:
    done = script(root, "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("error: data/processed/nothing has not been converted")
    assert done.stderr.count("\n") == 1
    assert script(root, "demo", "--count", "0").returncode == 2


def test_no_heavy_library_is_loaded(demo: Path, root: Path) -> None:
    code = (
        "import sys; from medqa.data.preview import preview; preview('demo');"
        "print({'torch', 'transformers', 'llamafactory', 'polars'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"
