"""Whether an exported model is still what was checked."""

import json
from pathlib import Path

import pytest

from medqa.errors import CheckpointError, MissingInputError
from medqa.export.record import RECORD, verify


def test_what_was_written_passes(exported: Path) -> None:
    record = verify(exported)
    assert record["fingerprint"].startswith("sha256:")
    (exported / "README.md").write_text("edited", encoding="utf-8")
    (exported / "notes.md").touch()
    (exported / "medqa_gguf.json").touch()
    assert verify(exported) == record


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "chat_template.jinja", "Modelfile"]
)
def test_one_changed_byte(exported: Path, name: str) -> None:
    data = bytearray((exported / name).read_bytes())
    data[len(data) // 2] ^= 1
    (exported / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{name} has been changed; make it again: make exp"):
        verify(exported)


@pytest.mark.parametrize(
    "name",
    ["adapter_config.json", "model-00001-of-00001.safetensors", "modeling_x.py", "model.bin"],
)
def test_what_would_be_read_too(exported: Path, name: str) -> None:
    (exported / name).touch()
    with pytest.raises(CheckpointError, match=f"{name} has been added"):
        verify(exported)


def test_every_file_that_is_wrong_is_named(exported: Path) -> None:
    (exported / "model.safetensors").unlink()
    (exported / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"model.safetensors is not there; tokenizer.json has been changed;"
    ):
        verify(exported)


def test_no_record(exported: Path) -> None:
    file = exported / RECORD
    record = json.loads(file.read_text(encoding="utf-8"))
    del record["digests"]
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(CheckpointError, match="of an older version"):
        verify(exported)
    file.unlink()
    with pytest.raises(MissingInputError, match="run: make export"):
        verify(exported)
