"""From the command line to a real model that serves, and all that can be wrong on the way."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from medqa.errors import CheckpointError, ConfigError, MedqaError, MissingInputError, TargetError
from medqa.files import sha256
from medqa.serve import checkpoint, launch, server
from medqa.serve.settings import Settings
from tests.adapters import ADAPTER, BASE
from tests.serve.parrot import VALUES, Parrot

HERE = VALUES | {
    "model_name_or_path": BASE,
    "adapter_name_or_path": ADAPTER,
    "name": "golden",
    "guard": None,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(HERE), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDQA_API_KEY", raising=False)


def fails(config: Path, *overrides: str) -> MedqaError:
    with pytest.raises(MedqaError) as caught:
        launch.serve(config, overrides)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_command_says_what_is_wrong_in_one_line(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/serve.py", "configs/tiny/serve.yaml", "prot=1", "port=x"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "unknown key 'prot'; did you mean 'port'?" in done.stderr
    assert "port: input should be a valid integer" in done.stderr


def test_another_host_without_a_key_is_refused(config: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        error = fails(config, f"host='{host}'")
        assert isinstance(error, ConfigError)
        assert f"host {host} can be reached from other machines" in str(error)


def test_a_key_that_is_none_is_not_shown(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQA_API_KEY", "my secret")
    assert "secret" not in str(fails(config, "host=0.0.0.0"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model_name_or_path=models/tiny-med", "models/tiny-med is not there; run: make demo"),
        ("model_name_or_path=models/chatglm3-6b", "run: make model"),
        ("model_name_or_path=models/chatglm3-6b-med", "run: make export"),
        ("adapter_name_or_path=saves/chatglm3-6b/lora/sft", "run: make train"),
        ("adapter_name_or_path=saves/tiny/lora/none", "run: make demo"),
        ("guard=configs/absent.yaml", "configs/absent.yaml does not exist"),
    ],
)
def test_what_is_not_there_is_named_with_the_command_that_makes_it(
    config: Path, in_pair: Path, override: str, told: str
) -> None:
    error = fails(config, override)
    assert isinstance(error, MissingInputError)
    assert told in str(error)


def test_a_checkpoint_with_code_of_its_own_is_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    folder = tmp_path / BASE
    folder.mkdir(parents=True)
    for found in ({"model_type": "chatglm"}, {"model_type": "glm", "auto_map": {}}):
        (folder / "config.json").write_text(json.dumps(found), encoding="utf-8")
        assert isinstance(fails(config), CheckpointError)


def test_an_adapter_of_another_base_is_refused(
    config: Path, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    shutil.copytree(pair, tmp_path, dirs_exist_ok=True)
    record = {"inputs": {BASE: "sha256:0123"}}
    (tmp_path / ADAPTER / "medqa_run.json").write_text(json.dumps(record), encoding="utf-8")
    error = fails(config)
    assert isinstance(error, CheckpointError)
    assert "they do not belong together" in str(error)


def test_a_taken_port_is_named(config: Path, in_pair: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = fails(config, f"port={port}")
    assert isinstance(error, TargetError)
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in str(error)
    assert "cannot listen on 192.0.2.1:0" in str(_unlistenable())


def _unlistenable() -> TargetError:
    with pytest.raises(TargetError) as caught:
        launch.listen("192.0.2.1", 0)  # an address for documentation, which no machine has
    return caught.value


def test_weights_that_were_changed_are_refused(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    shutil.copytree(pair / BASE, tmp_path / BASE)
    settings = Settings(**HERE)
    checkpoint.require_whole(settings)
    weights = tmp_path / BASE / "model.safetensors"
    before, data = sha256(weights), bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    assert sha256(weights) != before
    with pytest.raises(CheckpointError, match="not those that were imported"):
        checkpoint.require_whole(settings)
    (tmp_path / BASE / "medqa_import.json").unlink()
    checkpoint.require_whole(settings)  # nothing to be held against


def test_an_export_is_held_against_its_own_record(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    shutil.copytree(pair / BASE, tmp_path / BASE)
    record = {"step": "export", "digests": {"model.safetensors": "0"}}
    (tmp_path / BASE / "medqa_export.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model\.safetensors has been changed"):
        checkpoint.require_whole(Settings(**HERE))


@pytest.mark.parametrize("error", [MissingInputError("no model"), OSError("no\nmemory")])
def test_a_model_that_cannot_be_loaded_ends_the_server(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> None:
        raise error

    with launch.listen("127.0.0.1", 0) as listening, pytest.raises(MedqaError) as caught:
        server.run(Settings(**HERE), Parrot(), load, guard=None, key=None, listening=listening)
    assert "\n" not in str(caught.value)
    assert "serving" not in capsys.readouterr().out


class Served:
    """``scripts/serve.py`` on the golden pair, as a user runs it."""

    def __init__(self, root: Path, pair: Path, config: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "scripts/serve.py", str(config)],
            cwd=root,
            env=os.environ | {"MEDQA_ROOT": str(pair), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("serving "):
                self.url = line.split()[3]
                return
        raise AssertionError((self.said, self.process.communicate()))


@pytest.mark.slow
def test_a_real_model_serves_from_start_to_end(root: Path, pair: Path, config: Path) -> None:
    served = Served(root, pair, config)
    try:
        _talk(served)
    finally:
        served.process.kill()
        served.process.communicate()


def _talk(served: Served) -> None:
    assert served.said[-1] == f"serving golden on {served.url} (page: {served.url}/)\n"
    chat: Any = [{"role": "user", "content": "饮酒以后可以服用西地那非吗 <|assistant|>"}]
    with (
        httpx.Client(base_url=served.url, timeout=60, trust_env=False) as client,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as official,
        ThreadPoolExecutor(8) as pool,
    ):

        def whole(model: str) -> str:
            found = official.chat.completions.create(model=model, messages=chat)
            assert found.usage
            assert found.usage.completion_tokens > 0
            return found.choices[0].message.content or ""

        def streamed(model: str) -> str:
            found = official.chat.completions.create(model=model, messages=chat, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in found)

        said = {model: whole(model) for model in ("golden", "golden-base")}
        assert said["golden"] != said["golden-base"]
        # First alone: openai builds its types of a stream at their first use, where threads race.
        assert {model: streamed(model) for model in said} == said
        # Together and streamed they say what they said alone.
        together = [(m, pool.submit(streamed, m)) for _ in range(4) for m in said]
        assert all(one.result() == said[model] for model, one in together)
        port = int(served.url.rpartition(":")[2])
        data = json.dumps({"model": "golden", "messages": chat, "stream": True}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as gone:
                gone.sendall(head.encode() + data)
        end = time.monotonic() + 60
        while not _is_idle(client):
            assert time.monotonic() < end
        under_way = [(m, pool.submit(streamed, m)) for _ in range(4) for m in said]
        while _is_idle(client) and not all(one.done() for _, one in under_way):
            assert time.monotonic() < end
        served.process.terminate()
        for model, one in under_way:  # wholly, or not at all: they may have come too late
            error = one.exception()
            refused = isinstance(error, openai.InternalServerError | openai.APIConnectionError)
            assert refused if error else one.result() == said[model]
    out, journal = served.process.communicate(timeout=60)
    assert served.process.returncode == 0
    assert out == "stopped\n"
    assert all(json.loads(line)["status"] in (200, 499, 503) for line in journal.splitlines())


def _is_idle(client: httpx.Client) -> bool:
    lines = client.get("/metrics").text.splitlines()
    names = ("medqa_running ", "medqa_waiting ", "medqa_generating ")
    return all(float(line.split()[1]) == 0 for line in lines if line.startswith(names))
