"""Fixtures that all rooms share."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.project import Project

ROOT = Path(__file__).parents[1]
# What our code sets; Ray, torch and lm-eval leave variables of their own.
OURS = ("MEDQA_", "LLAMAFACTORY_", "TRANSFORMERS_", "OMP_", "OPENBLAS_")

# Hypothesis's own: the same examples in every run, and no failure because the machine was busy.
settings.load_profile("ci")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in what a script starts with &; so would be all that tests start and then interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers that have as many threads as there are cores each wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts first what takes long, so that no worker is left alone with it at the end.

    Of that, a file that makes the demo stands first and those that take it from there last.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    users = [item.path for item in items if "demo_project" in getattr(item, "fixturenames", ())]

    def turn(item: pytest.Item) -> int:
        if item.path in users:
            return 0 if item.path == users[0] else 2
        return 1 if item.path in slow else 3

    items.sort(key=turn)


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """A variable of ours that a test leaves would change those after it in the same worker."""

    def ours() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.startswith(OURS)}

    before = ours()
    yield
    assert ours() == before


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
def demo(demo_project: Project, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ``make demo`` prints. One worker makes it, the others take a copy of all it made."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return demo_project.make("demo")
    made = tmp_path_factory.getbasetemp().parent / "demo"
    printed = made / "printed.txt"
    with FileLock(made.with_suffix(".lock")):
        if printed.exists():
            _copy_made(made, demo_project.root)
        else:
            text = demo_project.make("demo")
            _copy_made(demo_project.root, made)
            printed.write_text(text, encoding="utf-8")
    return printed.read_text(encoding="utf-8")


def _copy_made(giver: Path, taker: Path) -> None:
    for name in ("data", "models", "outputs", "saves"):
        shutil.copytree(giver / name, taker / name, dirs_exist_ok=True)
