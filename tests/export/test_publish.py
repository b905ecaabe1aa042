"""What may be made and sent, in which order, and what is refused before anything is sent."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from medqa import provenance
from medqa.errors import CheckpointError, ConfigError, MissingInputError
from medqa.export import gguf, publish
from medqa.export.record import digests

CONFIG = "configs/tiny/publish.yaml"
PUSH = ["hub=huggingface", "repo=me/tiny-med"]


@pytest.fixture
def exported(project: Path) -> Path:
    """The golden model with the record of an export."""
    folder = project / "models/tiny-med"
    shutil.copytree(project / "models/tiny", folder)
    (folder / "medqa_import.json").unlink()
    (folder / "Modelfile").write_text("FROM .\n", encoding="utf-8")
    (folder / "README.md").write_text("# 模型卡\n", encoding="utf-8")
    names = [file.name for file in folder.iterdir() if file.name != "README.md"]
    provenance.write(
        folder / "medqa_export.json",
        step="export",
        inputs={},
        config={},
        fingerprint="sha256:1234",
        parity={"difference": 1e-6, "tolerance": 1e-4},
        digests=digests(folder, names),
    )
    return folder


class Hub:
    """What is called instead of an upload."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[str], str, str, bool]] = []

    def __call__(
        self, folder: Path, names: Sequence[str], repository: str, hub: str, private: bool
    ) -> None:
        self.sent.append((folder.name, list(names), repository, hub, private))


def edit(folder: Path, **changes: object) -> None:
    file = folder / "medqa_export.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(record | changes), encoding="utf-8")


def test_nothing_is_asked_for(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub()
    publish.publish(CONFIG, [], hub)
    assert capsys.readouterr().out == (
        "models/tiny-med: as exported; set quantize, gguf or hub for more\n"
    )
    assert not hub.sent


def test_model_and_gguf_go_to_repositories_of_their_own(exported: Path) -> None:
    hub = Hub()
    publish.publish(CONFIG, [*PUSH, "gguf=f16"], hub)
    (whole, names, *to), (part, of_part, *to_part) = hub.sent
    assert (whole, to) == ("tiny-med", ["me/tiny-med", "huggingface", True])
    assert set(names) == {file.name for file in exported.iterdir()}
    assert (part, to_part) == ("tiny-med-gguf-f16", ["me/tiny-med-gguf-f16", "huggingface", True])
    assert of_part == ["Modelfile", "README.md", gguf.RECORD, "tiny-med-gguf-f16.gguf"]


def test_public_is_said(exported: Path) -> None:
    hub = Hub()
    publish.publish(CONFIG, [*PUSH, "private=false"], hub)
    assert hub.sent[0][-1] is False


def test_a_dry_run_lists_and_makes_and_sends_nothing(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub()
    before = {file: file.stat().st_mtime_ns for file in exported.parent.rglob("*")}
    publish.publish(CONFIG, [*PUSH, "gguf=f16", "quantize=8"], hub, dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "models/tiny-med-8bit: not made yet; would be made, then sent",
        "models/tiny-med-gguf-f16: not made yet; would be made, then sent",
    ]
    total = sum(file.stat().st_size for file in exported.iterdir())
    assert lines[2] == f"would send to huggingface me/tiny-med (private), {total:,} bytes:"
    size = (exported / "model.safetensors").stat().st_size
    assert f"  {size:>14,}  models/tiny-med/model.safetensors" in lines
    assert len(lines) == 3 + len(list(exported.iterdir()))
    assert not hub.sent
    assert before == {file: file.stat().st_mtime_ns for file in exported.parent.rglob("*")}


@pytest.mark.parametrize(
    "name",
    [
        "modeling_chatglm.py",
        "pytorch_model.bin",
        "training_args.bin",
        "rejects.jsonl",
        "train.jsonl",
        "notes.txt",
        ".env",
        "events.out.tfevents.1",
    ],
)
def test_what_is_no_part_of_a_model_is_never_sent(exported: Path, name: str) -> None:
    (exported / name).touch()
    hub = Hub()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        publish.publish(CONFIG, PUSH, hub)
    assert not hub.sent


def test_neither_are_folders_and_links(exported: Path) -> None:
    (exported / "LICENSE").mkdir()
    with pytest.raises(CheckpointError, match="holds LICENSE, which is no part"):
        publish.sendable(exported)
    (exported / "LICENSE").rmdir()
    (exported / "NOTICE").symlink_to(exported / "README.md")
    with pytest.raises(CheckpointError, match="holds NOTICE, which is no part"):
        publish.sendable(exported)
    (exported / "NOTICE").unlink()
    for name in ("MODEL_LICENSE", "LICENSE.txt", "README_zh.md"):
        (exported / name).touch()
    assert publish.sendable(exported) == sorted(file.name for file in exported.iterdir())


def test_no_model_card(exported: Path) -> None:
    (exported / "README.md").unlink()
    with pytest.raises(CheckpointError, match=r"has no model card \(README\.md\)"):
        publish.publish(CONFIG, PUSH, Hub())


def test_a_weight_changed_after_the_export(exported: Path) -> None:
    weights = exported / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for overrides in (PUSH, ["quantize=4"], ["gguf=f16"]):
        with pytest.raises(CheckpointError, match=r"model\.safetensors has been changed"):
            publish.publish(CONFIG, overrides, Hub())
    assert sorted(p.name for p in exported.parent.iterdir()) == ["tiny", "tiny-med"]


@pytest.mark.parametrize(
    "parity", [None, {}, {"difference": 0.2, "tolerance": 1e-4}, {"difference": None}]
)
def test_a_record_that_does_not_say_that_it_passed(exported: Path, parity: object) -> None:
    edit(exported, parity=parity)
    with pytest.raises(CheckpointError, match="does not say that the model answers as base and"):
        publish.publish(CONFIG, PUSH, Hub())


def test_no_export(project: Path) -> None:
    with pytest.raises(MissingInputError, match=r"models/tiny is not a model that make export wr"):
        publish.publish(CONFIG, ["model=models/tiny"], Hub())
    with pytest.raises(MissingInputError, match=r"models/none is not a model that make export wr"):
        publish.publish(CONFIG, ["model=models/none"], Hub())


def test_what_was_made_of_another_export(exported: Path) -> None:
    publish.publish(CONFIG, ["gguf=f16"], Hub())
    edit(exported, fingerprint="sha256:5678")
    with pytest.raises(CheckpointError, match="gguf-f16 was not made of this model"):
        publish.publish(CONFIG, [*PUSH, "gguf=f16"], Hub(), dry_run=True)
    hub = Hub()
    publish.publish(CONFIG, [*PUSH, "gguf=f16"], hub, overwrite=True)
    assert len(hub.sent) == 2


def test_what_was_changed_after_it_was_made(exported: Path) -> None:
    publish.publish(CONFIG, ["gguf=f16"], Hub())
    made = exported.with_name("tiny-med-gguf-f16") / "Modelfile"
    made.write_text(made.read_text(encoding="utf-8").replace("stop", "STOP"), encoding="utf-8")
    hub = Hub()
    with pytest.raises(CheckpointError, match=r"changed after it was made \(Modelfile\)"):
        publish.publish(CONFIG, [*PUSH, "gguf=f16"], hub)
    assert not hub.sent, "nothing goes before all is known to be right"


def test_every_problem_of_the_config_is_named_at_once() -> None:
    overrides = ["quantize=5", "gguf=q4", "hub=github", "repo=me", "privat=true"]
    with pytest.raises(ConfigError) as caught:
        publish.publish(CONFIG, overrides, Hub())
    said = "; ".join(caught.value.problems)
    for part in ("quantize: ", "gguf: ", "hub: ", "repo: expected owner/name", "'private'?"):
        assert part in said
    for half in (["hub=modelscope"], ["repo=me/x"]):
        with pytest.raises(ConfigError, match="hub and repo: expected both or none"):
            publish.publish(CONFIG, half, Hub())


@pytest.mark.parametrize("repo", ["me/", "/x", "a/b/c", "me/x y", "../x", "me/..", "我/模型"])
def test_names_that_are_none(repo: str) -> None:
    with pytest.raises(ConfigError, match="repo: expected owner/name"):
        publish.publish(CONFIG, ["hub=huggingface", f"repo={repo}"], Hub())


def test_the_script(exported: Path, root: Path) -> None:
    command = [sys.executable, root / "scripts/publish.py", root / CONFIG, *PUSH]
    done = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "would send to huggingface me/tiny-med (private)" in done.stdout
    done = subprocess.run([*command, "repo=me"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
