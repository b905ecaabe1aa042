"""A project of its own for each test: raw files, a YAML, and what convert makes of them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqa.data import pipeline

SETTINGS: dict[str, Any] = {
    "name": "demo",
    "min_question_chars": 2,
    "max_question_chars": 100,
    "min_answer_chars": 2,
    "max_answer_chars": 200,
    "test_share": 0.1,
    "seed": 42,
}


class Project:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw = root / "data" / "raw"
        self.raw.mkdir(parents=True)
        self.processed = root / "data" / "processed"

    def lines(self, name: str, rows: Iterable[Any]) -> Path:
        """Writes JSON lines; a row that is bytes is written as it is."""
        file = self.raw / name
        texts = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
        file.write_bytes(b"".join(text + b"\n" for text in texts))
        return file

    def config(self, *names: str, **settings: Any) -> Path:
        """Writes a YAML that reads the raw files `names`, each under its stem as tag."""
        values = {**SETTINGS, "sources": [self.source(name) for name in names], **settings}
        file = self.root / f"{values['name']}.yaml"
        file.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
        return file

    def source(self, name: str, **more: Any) -> dict[str, Any]:
        return {"path": f"data/raw/{name}", "source": name.split(".")[0], **more}

    def convert(self, *names: str, overwrite: bool = False, **settings: Any) -> str:
        return pipeline.convert(self.config(*names, **settings), overwrite=overwrite)

    def read(self, part: str, name: str = "demo") -> list[dict[str, Any]]:
        text = (self.processed / name / f"{part}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def manifest(self, name: str = "demo") -> dict[str, Any]:
        return json.loads((self.processed / name / "manifest.json").read_text(encoding="utf-8"))

    @property
    def info(self) -> Path:
        return self.root / "data" / "dataset_info.json"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.setenv("MEDQA_ROOT", str(root))
    return Project(root)
