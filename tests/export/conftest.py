"""A project with an imported golden base and a random adapter whose training has finished."""

import json
import shutil
from pathlib import Path

import pytest

from medqa import provenance
from tests.adapters import ADAPTER, BASE, write_golden_pair


@pytest.fixture(scope="session")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; tests work on copies."""
    project = tmp_path_factory.mktemp("project")
    write_golden_pair(root, project, std=0.1)
    base, adapter = project / BASE, project / ADAPTER
    fingerprint = json.loads((base / "medqa_import.json").read_text(encoding="utf-8"))
    (adapter / "all_results.json").write_text("{}", encoding="utf-8")
    provenance.write(
        adapter / "medqa_run.json",
        step="train",
        inputs={BASE: fingerprint["fingerprint"]},
        config={},
    )
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    return tmp_path
