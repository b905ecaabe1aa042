"""Sending to both hubs by their own clients, to a stand-in on this machine.

Of Hugging Face's two ways of sending big files it speaks the one over Git LFS. The other, Xet, is a
compiled program of theirs that speaks to servers of theirs, and is not tested here.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from medqa.errors import ConfigError, StepError, TargetError
from medqa.hub import HUBS, Hub
from medqa.hub.upload import TOKENS, upload
from tests import stand_in

WEIGHTS = bytes(range(256)) * 4096
FILES = {
    "README.md": "---\nlicense: other\n---\n# 模型卡\n".encode(),
    "config.json": b'{"model_type": "glm"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}" * 40_000,
}
TOKEN = "hf_a-token-that-must-not-be-shown"

# huggingface_hub hands a file to httpx in the way of requests.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)


class StandIn(stand_in.Server):
    """As much of both protocols as the libraries speak when they send."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.status = 200
        self.refused = "nothing"
        """A part of the paths that are answered with 403."""
        self.spoiled = ""
        """A name of which other bytes arrive."""
        self.puts: list[int] = []
        self.commits: list[list[str]] = []
        self.tokens: set[str] = set()

    def store(self, repository: str, changes: dict[str, bytes]) -> None:
        self.commits.append(sorted(changes))
        if self.spoiled in changes:
            changes = changes | {self.spoiled: b"?" * len(changes[self.spoiled])}
        self.repositories[repository].files.update(changes)


class Handler(stand_in.Handler):
    server: StandIn

    def answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.tokens.add(self.headers.get("Authorization") or "")
        if self.server.status != 200 or self.server.refused in path:
            status = 403 if self.server.status == 200 else self.server.status
            return self.json({"error": "no", "Message": "no"}, status)
        if match := re.fullmatch(r"/blobs/(\w+)", path):
            self.server.puts.append(len(self.body))
            self.server.blobs[match[1]] = self.body
            return self.json({})
        if path.endswith("/lfs/objects/batch"):
            return self.batch()
        if path.startswith(("/api/v1/", "/openapi/")):
            return self.modelscope(path)
        return self.huggingface(path)

    do_GET = do_POST = do_PUT = answer

    def batch(self) -> None:
        """Git LFS, which both speak."""
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry: dict[str, object] = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.server.blobs:
                href = f"{self.server.url}/blobs/{asked['oid']}"
                entry["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(entry)
        self.json({"transfer": "basic", "objects": objects, "Data": {"objects": objects}})

    def huggingface(self, path: str) -> None:
        if path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(self.body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories[name] = Repository(asked["visibility"] == "private")
            return self.json({"url": f"{self.server.url}/{name}", "name": name})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(tree|preupload|commit)/main)?", path)
        if not match or match[1] not in self.server.repositories:
            return self.json({"error": "Repository not found"}, 404, "RepoNotFound")
        name, verb = match.groups()
        held = self.server.repositories[name]
        if verb is None:
            return self.json({"id": name, "sha": "a" * 40, "private": held.private})
        if verb == "tree":
            return self.json([self.entry(f, content) for f, content in held.files.items()])
        if verb == "preupload":
            files = [
                {"path": f["path"], "uploadMode": self.mode(f["path"]), "shouldIgnore": False}
                for f in json.loads(self.body)["files"]
            ]
            return self.json({"files": files})
        changes = {}
        for line in self.body.splitlines():
            value = json.loads(line)["value"]
            if "oid" in value:
                changes[value["path"]] = self.server.blobs[value["oid"]]
            elif "content" in value:
                changes[value["path"]] = base64.b64decode(value["content"])
        self.server.store(name, changes)
        self.json({"commitUrl": f"{self.server.url}/{name}/commit/b", "commitOid": "b" * 40})

    def mode(self, name: str) -> str:
        return "lfs" if name.endswith((".safetensors", ".gguf")) else "regular"

    def entry(self, name: str, content: bytes) -> dict[str, object]:
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        entry: dict[str, object] = {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": blob,
        }
        if self.mode(name) == "lfs":
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        return entry

    def modelscope(self, path: str) -> None:
        if path == "/api/v1/models":
            asked = json.loads(self.body)
            name = f"{asked['Path']}/{asked['Name']}"
            if name in self.server.repositories:
                return self.json({"Code": 400, "Message": "already exists"}, 400)
            self.server.repositories[name] = Repository(asked["Visibility"] == 1)
            return self.data({"Path": asked["Path"], "Name": asked["Name"]})
        found = re.match(r"/(?:api|openapi)/v1/(?:repos/)?models/([^/]+/[^/]+)(/.*)?$", path)
        if not found or found[1] not in self.server.repositories:
            return self.json({"Code": 404, "Message": "not found"}, 404)
        name, rest = found[1], found[2] or ""
        held = self.server.repositories[name]
        if rest.startswith("/repo/files"):
            listing = [
                {"Path": f, "Type": "blob", "Size": len(b), "Sha256": hashlib.sha256(b).hexdigest()}
                for f, b in held.files.items()
            ]
            return self.data({"Files": listing})
        if rest.startswith("/commit/"):
            changes = {
                action["path"]: (
                    self.server.blobs[action["sha256"]]
                    if action["type"] == "lfs"
                    else base64.b64decode(action["content"])
                )
                for action in json.loads(self.body)["actions"]
            }
            self.server.store(name, changes)
            return self.data({"CommitId": "b" * 40})
        return self.data({"Name": name.partition("/")[2], "Visibility": 1 if held.private else 5})

    def data(self, value: object) -> None:
        self.json({"Code": 200, "Success": True, "success": True, "Data": value, "data": value})


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    from huggingface_hub import constants

    standin = StandIn()
    for variable, value in {
        "MEDQA_ROOT": str(tmp_path),
        "HF_ENDPOINT": standin.url + "/",
        "MODELSCOPE_ENDPOINT": standin.url,
        "MODELSCOPE_CACHE": str(tmp_path / "ms"),
        "MODELSCOPE_CREDENTIALS_PATH": str(tmp_path / "credentials"),
        "NO_PROXY": "127.0.0.1",
        **dict.fromkeys(TOKENS.values(), TOKEN),
    }.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with standin.running():
        yield standin


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models/tiny-med"
    made.mkdir(parents=True)
    for name, content in FILES.items():
        (made / name).write_bytes(content)
    (made / "not-asked-for.json").write_bytes(b"{}")
    return made


def send(folder: Path, hub: Hub, *, private: bool = True) -> None:
    upload(folder, sorted(FILES), "me/tiny-med", hub, private)


@pytest.mark.parametrize("hub", HUBS)
def test_all_arrives_and_nothing_else_and_is_sent_once(
    server: StandIn, folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    send(folder, hub)
    held = server.repositories["me/tiny-med"]
    assert held.private
    assert held.files == FILES
    assert len(server.commits) == 1, "nobody sees half a model"
    assert server.tokens <= {f"Bearer {TOKEN}", ""}
    assert f"Bearer {TOKEN}" in server.tokens
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"{hub} me/tiny-med: 4 files of models/tiny-med, checked"
    assert TOKEN not in out
    assert {f.name for f in folder.iterdir()} == {*FILES, "not-asked-for.json"}

    server.puts.clear()
    send(folder, hub)
    assert capsys.readouterr().out == f"up to date: {hub} me/tiny-med\n"
    assert len(server.commits) == 1
    assert not server.puts


@pytest.mark.parametrize("hub", HUBS)
def test_only_what_differs_is_sent(server: StandIn, folder: Path, hub: Hub) -> None:
    send(folder, hub)
    server.puts.clear()
    (folder / "config.json").write_bytes(b'{"model_type": "GLM"}')
    send(folder, hub)
    assert server.commits[-1] == ["config.json"]
    assert not server.puts
    assert server.repositories["me/tiny-med"].files["config.json"] == b'{"model_type": "GLM"}'


@pytest.mark.parametrize("hub", HUBS)
def test_weights_that_arrived_are_not_sent_again(
    server: StandIn, folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refused = "/commit/"
    with pytest.raises(StepError, match=r"access refused \(HTTP 403\)"):
        send(folder, hub)
    assert capsys.readouterr().out == f"sending 4 files, 0.00 GB, to {hub} me/tiny-med\n"
    assert max(server.puts) == len(WEIGHTS)
    assert not server.repositories["me/tiny-med"].files

    server.refused = "nothing"
    server.puts.clear()
    send(folder, hub)
    assert server.repositories["me/tiny-med"].files == FILES
    assert not server.puts


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_arrived_otherwise_is_told(server: StandIn, folder: Path, hub: Hub, name: str) -> None:
    server.spoiled = name
    with pytest.raises(StepError, match=rf"does not hold {name} as sent; run this again"):
        send(folder, hub)


@pytest.mark.parametrize("hub", HUBS)
def test_a_public_repository_gets_nothing_that_is_private(
    server: StandIn, folder: Path, hub: Hub
) -> None:
    server.repositories["me/tiny-med"] = Repository(private=False)
    with pytest.raises(ConfigError, match="everybody may read it, but private is true"):
        send(folder, hub)
    assert not server.commits
    send(folder, hub, private=False)
    assert server.repositories["me/tiny-med"].files == FILES


@pytest.mark.parametrize("hub", HUBS)
def test_public_is_made_only_when_asked_for(server: StandIn, folder: Path, hub: Hub) -> None:
    send(folder, hub, private=False)
    assert not server.repositories["me/tiny-med"].private


@pytest.mark.parametrize("hub", HUBS)
def test_weights_of_another_model_are_not_joined(server: StandIn, folder: Path, hub: Hub) -> None:
    """transformers reads model.safetensors before an index of shards: it would load the old one."""
    old = {"model-00001-of-00002.safetensors": b"old", ".gitattributes": b"*"}
    server.repositories["me/tiny-med"] = Repository(private=True, files=old)
    with pytest.raises(TargetError, match=r"holds model-00001-of-00002\.safetensors, which this"):
        send(folder, hub)
    assert not server.commits


@pytest.mark.parametrize("hub", HUBS)
def test_no_token(server: StandIn, folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKENS[hub])
    with pytest.raises(ConfigError, match=f"no token that may write; .* set {TOKENS[hub]}"):
        send(folder, hub)
    assert not server.tokens, "nothing was asked"


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize("status", [401, 403])
def test_access_refused(server: StandIn, folder: Path, hub: Hub, status: int) -> None:
    server.status = status
    with pytest.raises(
        StepError, match=rf"access refused \(HTTP {status}\).* in {TOKENS[hub]}"
    ) as e:
        send(folder, hub)
    assert TOKEN not in str(e.value)
    assert "\n" not in str(e.value)


def test_what_the_client_itself_refuses(
    server: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepError, match=r"Cannot have -- or \.\. in repo_id.*; take another repo"):
        upload(folder, ["config.json"], "me/tiny--med", "huggingface", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StepError, match="HF_HUB_OFFLINE forbids it; unset HF_HUB_OFFLINE"):
        send(folder, "huggingface")
    assert not server.commits


# How often a client tries again is read when it is imported.
ALONE = """
import sys
from pathlib import Path
from medqa import cli
from medqa.hub.upload import upload

cli.run(lambda _: upload(Path(sys.argv[1]), ["config.json"], "me/tiny-med", sys.argv[2], True))
"""


@pytest.mark.parametrize("hub", HUBS)
def test_nobody_listens(
    server: StandIn, folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = {"huggingface": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT"}[hub]
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_API_MAX_RETRIES", "1")
    command = [sys.executable, "-c", ALONE, str(folder), hub]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"error: cannot push to {hub} me/tiny-med: the hub does not answer; .* in {variable}\n",
        done.stderr,
    )
