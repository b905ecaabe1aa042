import json
import subprocess
import sys
from pathlib import Path

import pytest

from medqa.data import registry
from medqa.errors import DataError, TargetError

from .conftest import Project

ENTRY = {
    "file_name": "processed/demo/train.jsonl",
    "columns": {"prompt": "instruction", "query": "input", "response": "output"},
}


def file(project: Project, name: str = "demo", text: str = "{}\n") -> Path:
    path = project.processed / name / "train.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_other_entries_stay_as_they_are(project: Project) -> None:
    others = {
        "我的": {"file_name": "数据.json", "tags": {"a": [1, 2.5, None]}},
        "hub": {"hf_hub_url": "a/b"},
    }
    project.info.write_text(json.dumps(others, ensure_ascii=False), encoding="utf-8")
    assert registry.register({"demo_train": file(project)})
    written = project.info.read_bytes()
    assert written.isascii()
    assert json.loads(written) == {**others, "demo_train": ENTRY}
    assert list(json.loads(written)) == ["我的", "hub", "demo_train"]


def test_nothing_is_written_when_nothing_changes(project: Project) -> None:
    assert registry.register({"demo_train": file(project)})
    before = project.info.stat()
    assert not registry.register({"demo_train": file(project)})
    after = project.info.stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_a_file_without_rows_loses_its_entry(project: Project) -> None:
    registry.register({"demo_train": file(project)})
    assert registry.register({"demo_train": file(project, text="")})
    assert registry.read() == {}


@pytest.mark.parametrize("text", ["{", "", "[]", "3", "\udcff"])
def test_a_broken_registry_is_left_as_it_is(project: Project, text: str) -> None:
    project.info.write_bytes(text.encode(errors="surrogateescape"))
    before = project.info.read_bytes()
    with pytest.raises(DataError, match=r"data/dataset_info\.json must be a JSON object"):
        registry.register({"demo_train": file(project)})
    assert project.info.read_bytes() == before


def test_a_name_that_is_taken(project: Project) -> None:
    own = {"demo_train": {"file_name": "mine.json"}}
    project.info.write_text(json.dumps(own), encoding="utf-8")
    for attempt in (registry.register, registry.require_free):
        with pytest.raises(TargetError, match=r"entry 'demo_train' for mine\.json"):
            attempt({"demo_train": file(project)})
    assert registry.read() == own
    registry.register({"demo_train": file(project)}, overwrite=True)
    assert registry.read() == {"demo_train": ENTRY}


def test_converts_at_the_same_time_lose_no_entry(project: Project) -> None:
    code = (
        "import sys\n"
        "from medqa.data import registry\n"
        "from medqa.paths import processed\n"
        "for n in range(20):\n"
        "    name = f'p{sys.argv[1]}_{n}'\n"
        "    file = processed(name) / 'train.jsonl'\n"
        "    file.parent.mkdir(parents=True)\n"
        "    file.write_text('{}')\n"
        "    registry.register({name: file})\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(p)]) for p in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert set(registry.read()) == {f"p{p}_{n}" for p in range(4) for n in range(20)}
