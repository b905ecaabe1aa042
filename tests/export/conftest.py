"""A project with an imported golden base and a random adapter whose training has finished."""

import json
import os
import shutil
import subprocess
import sys
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
        config={"stage": "sft", "lora_rank": 4, "output_dir": ADAPTER, "dataset": "none"},
        steps=3,
    )
    return project


def launch(root: Path, project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the script as a user does."""
    return subprocess.run(
        [sys.executable, "scripts/export.py", "configs/tiny/export.yaml", *arguments],
        cwd=root,
        env=os.environ | {"MEDQA_ROOT": str(project)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def first(made: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project that has been exported once, and what was printed; tests work on copies."""
    project = tmp_path_factory.mktemp("exported")
    shutil.copytree(made, project, dirs_exist_ok=True)
    result = launch(root, project)
    assert result.returncode == 0, result.stderr
    return project, result.stdout


@pytest.fixture
def exported(first: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an exported model, in a project of its own."""
    shutil.copytree(first[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    return tmp_path / "models/tiny-med"


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    return tmp_path
