"""The start of LlamaBoard: what is refused, what is set, and that it works without us too."""

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

from medqa.errors import CheckpointError, ConfigError, MissingInputError, TargetError
from medqa.train import llamaboard, prefill, webui
from tests.train.board import free_port
from tests.train.test_prefill import checkpoint, project

__all__ = ["project"]


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


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "modeling.py"])
def test_a_model_with_code_of_its_own_is_refused(project: Path, name: str) -> None:
    config = {"model_type": "glm", "auto_map": {"AutoModel": "modeling.Model"}}
    text = "" if name.endswith(".py") else json.dumps(config)
    (project / "models/tiny" / name).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"models/tiny brings code of its own .*never run"):
        webui.launch("127.0.0.1", 7860, None)


def test_a_root_path_is_a_path_or_an_address(project: Path) -> None:
    with pytest.raises(ConfigError, match="--root-path: expected a path"):
        webui.launch("127.0.0.1", 7860, None, "proxy/6006")
    assert webui._root_path("/proxy/6006/") == "/proxy/6006"
    assert webui._root_path("https://u1.example.com:8443/") == "https://u1.example.com:8443"


@pytest.fixture
def served(project: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the server is told; nothing is served."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(llamaboard, "serve", lambda *_, **named: told.update(named))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(project)
    return told


@pytest.mark.parametrize(
    ("host", "shared", "warned"),
    [
        ("127.0.0.1", "", ""),
        ("0.0.0.0", "", "anyone who reaches 0.0.0.0:"),
        ("127.0.0.1", "true", "anyone who reaches the public link"),
    ],
)
def test_what_others_can_reach_is_said_and_nothing_is_shared_unasked(
    served: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    host: str,
    shared: str,
    warned: str,
) -> None:
    os.environ["GRADIO_SHARE"] = shared
    webui.launch(host, free_port(), None)
    assert served["share"] is bool(shared)
    warnings = [w for w in capsys.readouterr().err.splitlines() if "anyone" in w]
    assert [w.startswith(f"warning: {warned}") for w in warnings] == [True] * bool(warned)


def test_nobody_outside_is_asked_unless_the_user_wants_it(served: dict[str, Any]) -> None:
    os.environ.pop("HF_HUB_OFFLINE", None)
    webui.launch("127.0.0.1", free_port(), None, "/proxy/6006")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert served["root_path"] == "/proxy/6006"
    os.environ["HF_HUB_OFFLINE"] = "0"
    webui.launch("127.0.0.1", free_port(), None)
    assert os.environ["HF_HUB_OFFLINE"] == "0"


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


@pytest.fixture
def page(project: Path) -> Iterator[Page]:
    """LlamaBoard as LLaMA-Factory's own command starts it, on the files that we write."""
    port = free_port()
    prefill.write(project / "models/tiny", chosen=False)
    command = [str(Path(sys.executable).with_name("llamafactory-cli")), "webui"]
    environment = os.environ | {
        "BROWSER": "true",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
    }
    log = project / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=project, env=environment, stdout=out, stderr=out, start_new_session=True
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
def test_llamafactorys_own_command_finds_model_template_and_recipe(
    page: Page, project: Path
) -> None:
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
