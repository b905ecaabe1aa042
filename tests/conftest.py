"""Fixtures that all rooms share."""

import os
import shutil
from pathlib import Path

import pytest

from tests.project import Project

ROOT = Path(__file__).parents[1]

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers that have as many threads as there are cores each wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take long first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real reference data beside the checkout; users do not have it, our CI always does."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        if os.environ.get("MEDQA_SHARED") == "required":
            pytest.fail("../shared is absent, and here it must be there")
        pytest.skip("needs ../shared (real ChatGLM3 tokenizer and Huatuo rows), absent here")
    return folder


@pytest.fixture(scope="session")
def demo_project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    for name in ("scripts", "pyproject.toml", "constraints.txt", "Makefile", "README.md"):
        (folder / name).symlink_to(root / name)
    shutil.copytree(root / "configs", folder / "configs")
    for name in ("sample", "example"):
        shutil.copytree(root / "data" / name, folder / "data" / name)
    return Project(folder)


@pytest.fixture(scope="session")
def demo(demo_project: Project) -> str:
    """What ``make demo`` prints."""
    return demo_project.make("demo")
