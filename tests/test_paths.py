"""Where things are."""

from pathlib import Path

import pytest

from medqa import paths
from medqa.errors import MissingInputError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "configs" / "tiny").mkdir(parents=True)
    monkeypatch.setenv("MEDQA_ROOT", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def test_without_the_variable_the_root_is_the_checkout(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (None, ""):
        monkeypatch.setenv("MEDQA_ROOT", value) if value is not None else monkeypatch.delenv(
            "MEDQA_ROOT", raising=False
        )
        assert paths.project_root() == root.resolve()


def test_a_relative_root_is_made_absolute(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQA_ROOT", "project")
    assert paths.project_root() == project
    assert paths.resolve("models/tiny") == project / "models" / "tiny"


def test_resolve(project: Path, tmp_path: Path) -> None:
    assert paths.resolve("models/tiny") == project / "models/tiny"
    assert paths.resolve(tmp_path / "elsewhere") == tmp_path / "elsewhere"
    assert paths.dataset_info() == project / "data/dataset_info.json"
    assert paths.processed("huatuo") == project / "data/processed/huatuo"


def test_shown(project: Path, tmp_path: Path) -> None:
    assert paths.shown(project / "models/tiny") == "models/tiny"
    assert paths.shown(project / "models/../saves") == "saves"
    assert paths.shown(tmp_path / "elsewhere") == str(tmp_path / "elsewhere")


def test_a_config_is_looked_up_from_the_working_directory_then_the_root(
    project: Path, tmp_path: Path
) -> None:
    name = Path("configs/tiny/a.yaml")
    (project / name).write_text("a: 1\n", encoding="utf-8")
    assert paths.config_file(name) == project / name
    here = tmp_path / name
    here.parent.mkdir(parents=True)
    here.write_text("a: 2\n", encoding="utf-8")
    assert paths.config_file(str(name)).resolve() == here


def test_an_absent_config_lists_its_neighbours(project: Path) -> None:
    for name in ("lora_sft.yaml", "export.yaml", "notes.txt"):
        (project / "configs/tiny" / name).touch()
    with pytest.raises(MissingInputError, match=r"lora_sf\.yaml does not exist; found: (.*)") as e:
        paths.config_file("configs/tiny/lora_sf.yaml")
    assert str(e.value).endswith("found: export.yaml, lora_sft.yaml")


def test_an_absent_recipe_lists_all_configs(project: Path) -> None:
    (project / "configs/tiny/chat.yaml").touch()
    for given in ("configs/tinny/chat.yaml", "nowhere/x/y.yaml"):
        with pytest.raises(MissingInputError, match=r"found: configs/tiny/chat\.yaml$"):
            paths.config_file(given)
    (project / "configs/tiny/chat.yaml").unlink()
    with pytest.raises(MissingInputError, match=r"found: no YAML under configs/$"):
        paths.config_file("configs/tiny/chat.yaml")


def test_a_folder_is_no_config(project: Path) -> None:
    with pytest.raises(MissingInputError, match="configs/tiny does not exist"):
        paths.config_file("configs/tiny")
