"""LlamaBoard: what is filled in, and that it answers on this machine only."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqa.errors import CheckpointError, MissingInputError, TargetError
from medqa.train import webui

RECIPE = {
    "model_name_or_path": "models/tiny",
    "template": "chatglm3",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "dataset": "sample_train, general_train",
    "dataset_dir": "data",
    "output_dir": "saves/tiny/lora/sft",
    "learning_rate": "1e-4",
    "per_device_train_batch_size": 3,
    "lora_rank": 4,
    "max_steps": 7,
    "split_special_tokens": True,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an imported tiny model and its recipe."""
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    for variable in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_SHARE"):
        monkeypatch.delenv(variable, raising=False)
    checkpoint(tmp_path / "models/tiny")
    recipe = tmp_path / "configs/tiny/lora_sft.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return tmp_path


def checkpoint(folder: Path, kind: str = "glm") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    (folder / "medqa_import.json").write_text("{}", encoding="utf-8")
    return folder


def settings(project: Path) -> dict[str, Any]:
    text = (project / "llamaboard_cache/user_config.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def test_prefill_on_a_new_project(project: Path) -> None:
    webui.prefill(project / "models/tiny", chosen=False)
    assert settings(project) == {
        "lang": "zh",
        "hub_name": None,
        "last_model": "ChatGLM3-6B-Chat",
        "path_dict": {"ChatGLM3-6B-Chat": str(project / "models/tiny")},
        "cache_dir": None,
    }


def test_prefill_keeps_what_the_user_set(project: Path) -> None:
    file = project / "llamaboard_cache/user_config.yaml"
    file.parent.mkdir()
    mine = checkpoint(project / "elsewhere")
    before = {
        "lang": "en",
        "last_model": "Qwen3-0.6B-Thinking",
        "path_dict": {"ChatGLM3-6B-Chat": str(mine), "Other": "x/y"},
    }
    file.write_text(yaml.safe_dump(before), encoding="utf-8")
    webui.prefill(project / "models/tiny", chosen=False)
    assert settings(project) == before | {"hub_name": None, "cache_dir": None}

    webui.prefill(project / "models/tiny", chosen=True)
    after = settings(project)
    assert after["last_model"] == "ChatGLM3-6B-Chat"
    assert after["path_dict"] == {
        "ChatGLM3-6B-Chat": str(project / "models/tiny"),
        "Other": "x/y",
    }


def test_an_import_of_the_6b_takes_the_place_of_the_tiny_one(project: Path) -> None:
    webui.prefill(webui._checkpoint(None), chosen=False)
    big = checkpoint(project / "models/chatglm3-6b")
    webui.prefill(webui._checkpoint(None), chosen=False)
    assert settings(project)["path_dict"]["ChatGLM3-6B-Chat"] == str(big)


def test_the_recipe_is_offered_and_an_edited_offer_is_kept(project: Path) -> None:
    webui.prefill(project / "models/tiny", chosen=False)
    offer = project / "llamaboard_config/medqa-tiny.yaml"
    values = yaml.safe_load(offer.read_text(encoding="utf-8"))
    assert values["train.dataset"] == ["sample_train", "general_train"]
    assert values["train.learning_rate"] == "0.0001"
    assert values["train.batch_size"] == 3
    assert values["train.compute_type"] == "fp32"
    assert json.loads(values["train.extra_args"]) == {"max_steps": 7, "split_special_tokens": True}
    offer.write_text("edited: 1\n", encoding="utf-8")
    webui.prefill(project / "models/tiny", chosen=False)
    assert offer.read_text(encoding="utf-8") == "edited: 1\n"


def test_bf16_and_liger_are_chosen_by_their_own_elements() -> None:
    values = webui.elements({"bf16": True, "enable_liger_kernel": True})
    assert values["train.compute_type"] == "bf16"
    assert values["top.booster"] == "liger_kernel"
    assert values["train.extra_args"] == "{}"


def test_without_a_model_it_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    with pytest.raises(MissingInputError, match=r"make demo .* or make model"):
        webui.launch("127.0.0.1", 7860, None)
    with pytest.raises(MissingInputError, match=r"models/none holds no readable config\.json"):
        webui.launch("127.0.0.1", 7860, "models/none")
    checkpoint(tmp_path / "models/chatglm3-6b-original", "chatglm")
    with pytest.raises(CheckpointError, match=r"import_model\.py models/chatglm3-6b-original"):
        webui.launch("127.0.0.1", 7860, "models/chatglm3-6b-original")
    assert not (tmp_path / "llamaboard_cache").exists()


def test_a_taken_port_is_one_line(project: Path, root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "scripts/webui.py", "--port", str(port)],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        with pytest.raises(TargetError):
            webui._require_free("127.0.0.1", 70000)
    assert result.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


class Page:
    """The running UI, driven over Gradio's HTTP interface as the page itself does."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.config = json.loads(self.get("/config"))

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return str(answer.read().decode())

    def find(self, kind: str, inputs: int, outputs: int | None = None) -> dict[str, Any]:
        return next(
            d
            for d in self.config["dependencies"]
            if any(t[1] == kind for t in d["targets"])
            and len(d["inputs"]) == inputs
            and (outputs is None or len(d["outputs"]) == outputs)
        )

    def run(self, event: dict[str, Any], data: list[Any]) -> dict[int, Any]:
        """Returns the new values of the event's outputs, by component."""
        session = f"test{event['id']}"
        body = {"data": data, "fn_index": event["id"], "session_hash": session}
        join = urllib.request.Request(
            self.url + "/gradio_api/queue/join",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(join, timeout=30):
            pass
        result: dict[int, Any] = {}
        stream = f"{self.url}/gradio_api/queue/data?session_hash={session}"
        with urllib.request.urlopen(stream, timeout=30) as lines:
            for line in lines:
                message = json.loads(line.removeprefix(b"data: ")) if line.strip() else {}
                kind = message.get("msg")
                if kind in ("process_generating", "process_completed"):
                    assert message["success"], message
                    new = message["output"].get("data") or []
                    if new and not result:
                        result = dict(zip(event["outputs"], new, strict=True))
                if kind == "process_completed":
                    return result
        raise AssertionError("the stream ended early")


def value(update: Any) -> Any:
    return update.get("value") if isinstance(update, dict) else update


@pytest.fixture(params=["scripts/webui.py", "llamafactory-cli"])
def page(request: pytest.FixtureRequest, project: Path, root: Path) -> Iterator[Page]:
    """LlamaBoard as our script starts it, then as LLaMA-Factory's own command does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "BROWSER": "true"}
    if request.param == "scripts/webui.py":
        command = [sys.executable, str(root / "scripts/webui.py"), "--port", str(port)]
        folder = root
    else:
        webui.prefill(project / "models/tiny", chosen=False)
        command = [str(Path(sys.executable).with_name("llamafactory-cli")), "webui"]
        environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
        folder = project
    log = project / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                answering = Page(port)
                break
            except OSError:
                text = log.read_text(encoding="utf-8")
                assert process.poll() is None, text
                assert time.monotonic() < deadline, text
                time.sleep(0.5)
        yield answering
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_the_page_is_filled_in_and_local(page: Page, project: Path) -> None:
    port = int(page.url.rpartition(":")[2])
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
    ]
    assert listening == [f"0100007F:{port:04X}"], "must listen on 127.0.0.1 alone"

    shown = page.run(page.find("load", 0), [])
    assert "zh" in map(value, shown.values())
    assert "ChatGLM3-6B-Chat" in map(value, shown.values())
    model_name = next(i for i, v in shown.items() if value(v) == "ChatGLM3-6B-Chat")
    asked = next(
        d
        for d in page.config["dependencies"]
        if [model_name, "change"] in d["targets"] and len(d["outputs"]) == 2
    )
    filled = page.run(asked, ["ChatGLM3-6B-Chat"])
    assert [value(v) for v in filled.values()] == [str(project / "models/tiny"), "chatglm3"]

    load = next(
        d
        for d in page.config["dependencies"]
        if any(t[1] == "click" for t in d["targets"])
        and len(d["inputs"]) == 2
        and len(d["outputs"]) > 60
    )
    loaded = page.run(load, ["zh", "medqa-tiny.yaml"])
    values = [value(v) for v in loaded.values()]
    assert "训练参数已载入。" in values
    assert ["sample_train", "general_train"] in values
    assert '{"max_steps": 7, "split_special_tokens": true}' in values
