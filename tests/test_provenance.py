"""A record holds only while its inputs, its config and its outputs do."""

import json
from pathlib import Path
from typing import Any

import pytest

from medqa import provenance
from medqa.errors import CheckpointError

INPUTS = {"data/a.jsonl": "0" * 64}
CONFIG: dict[str, Any] = {"seed": 42, "names": ["a", "b"], "path": Path("data"), "share": 0.1}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    folder = tmp_path / "result"
    (folder / "sub").mkdir(parents=True)
    outputs = [folder / "weights.bin", folder / "sub" / "answers.jsonl"]
    for file in outputs:
        file.write_bytes(b"12345")
    path = folder / "record.json"
    provenance.write(
        path, step="train", inputs=INPUTS, config=CONFIG, outputs=outputs, rows=3, note="药"
    )
    return path


def current(path: Path, **changed: Any) -> bool:
    return provenance.is_current(
        path, **{"step": "train", "inputs": INPUTS, "config": CONFIG, **changed}
    )


def test_the_record_says_it_all(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert "药" in text
    found = json.loads(text)
    assert found.pop("finished").endswith("+00:00")
    assert found.pop("versions").keys() == {"python", *provenance.PACKAGES}
    assert found == {
        "step": "train",
        "inputs": INPUTS,
        "config": {"seed": 42, "names": ["a", "b"], "path": "data", "share": 0.1},
        "outputs": {"weights.bin": 5, "sub/answers.jsonl": 5},
        "rows": 3,
        "note": "药",
    }


def test_current(record: Path) -> None:
    assert current(record)
    assert current(record, config={**CONFIG, "names": ("a", "b")}), "compared as JSON"


@pytest.mark.parametrize(
    "changed",
    [
        {"step": "export"},
        {"inputs": {}},
        {"inputs": {"data/a.jsonl": "1" * 64}},
        {"inputs": {**INPUTS, "data/b.jsonl": "0" * 64}},
        {"config": {**CONFIG, "seed": 43}},
        {"config": {**CONFIG, "more": None}},
    ],
    ids=str,
)
def test_not_current_after_a_change(record: Path, changed: dict[str, Any]) -> None:
    assert not current(record, **changed)


def test_not_current_without_its_outputs(record: Path) -> None:
    weights = record.parent / "weights.bin"
    weights.write_bytes(b"1234")
    assert not current(record), "truncated"
    weights.unlink()
    assert not current(record), "missing"
    weights.mkdir()
    assert not current(record), "a folder"


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b"{}"],
    ids=repr,
)
def test_not_current_when_the_record_is_broken(record: Path, text: bytes) -> None:
    record.write_bytes(text)
    assert not provenance.read(record)
    assert not current(record)


def test_not_current_when_half_written(record: Path) -> None:
    whole = record.read_bytes()
    for length in range(0, len(whole) - 3, 7):
        record.write_bytes(whole[:length])
        assert not current(record)


def test_no_record(tmp_path: Path) -> None:
    assert provenance.read(tmp_path / "absent.json") is None
    assert provenance.read(tmp_path) is None
    assert not current(tmp_path / "absent.json")


def test_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    (tmp_path / "a").write_bytes(b"abc")
    begins = "ba7816bf"  # of "abc", FIPS 180-2
    assert [(k, v[:8]) for k, v in provenance.digest(tmp_path / "a").items()] == [("a", begins)]


def test_versions() -> None:
    found = provenance.versions()
    assert found["medqa"] != "absent"
    assert found["torch"] != "absent"


def test_model_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    folder = tmp_path / "models/x"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"12345")
    unrecorded = provenance.model_digest("models/x")
    assert list(unrecorded) == ["models/x"]
    (folder / "model.safetensors").write_bytes(b"123456")
    assert provenance.model_digest("models/x") != unrecorded
    (folder / "medqa_import.json").write_text('{"fingerprint": "f00d"}', encoding="utf-8")
    assert provenance.model_digest("models/x") == {"models/x": "f00d"}
    assert provenance.model_digest(folder) == {"models/x": "f00d"}


def test_an_adapter_belongs_to_the_base_it_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    base, adapter = tmp_path / "models/a", tmp_path / "saves/a"
    provenance.write(
        base / "medqa_import.json", step="import", inputs={}, config={}, fingerprint="one"
    )
    assert provenance.require_same_base(adapter, base) is False
    record = adapter / "medqa_run.json"
    provenance.write(record, step="train", inputs={"models/a": "one", "data": "x"}, config={})
    assert provenance.require_same_base(adapter, base) is True
    base.rename(tmp_path / "models/moved")
    assert provenance.require_same_base(adapter, tmp_path / "models/moved") is True
    provenance.write(
        base / "medqa_import.json", step="import", inputs={}, config={}, fingerprint="two"
    )
    with pytest.raises(CheckpointError, match="saves/a was trained on one, and models/a is two"):
        provenance.require_same_base(adapter, base)
