"""Downloads over both protocols, from a stand-in on this machine."""

import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from medqa import hub
from medqa.errors import ConfigError, DataError, DownloadError, TargetError
from medqa.hub import transfer
from medqa.provenance import read
from tests import stand_in

WEIGHTS = bytes(range(256)) * 4 * 24 * 1024  # 24 MiB: Hugging Face writes 10 MiB at a time
MODEL = {
    "config.json": b'{"model_type": "chatglm"}',
    "modeling_chatglm.py": b"raise SystemExit('remote code ran')",
    "tokenizer.model": b"pieces" * 100,
    "model-00001-of-00001.safetensors": WEIGHTS,
    "model.safetensors.index.json": b"{}",
    "pytorch_model-00001-of-00001.bin": b"pickle",
    "pytorch_model.bin.index.json": b"{}",
    "README.md": b"# card",
}
WANTED = {
    "config.json",
    "tokenizer.model",
    "model-00001-of-00001.safetensors",
    "model.safetensors.index.json",
}
# What the repositories of examinations hold, all in one, beside what nobody asked for.
EXAM = {
    **{name: name.encode() * 100 for _, names in hub.EXAMS.values() for name in names},
    "README.md": b"# card",
    "cmmlu.py": b"raise SystemExit('remote code ran')",
    "CMB-Exam/CMB-train/CMB-train-merge.json": b"[]",
}
ROWS = '{"questions":"头痛怎么办","answers":"多休息"}\n'.encode() * 1000
BIG = "model-00001-of-00001.safetensors"


class StandIn(stand_in.Server):
    """Speaks as much of both hubs' protocols as their libraries ask for."""

    # A client that is killed leaves a broken pipe: expected here.
    handle_error = lambda self, request, client_address: None  # noqa: E731

    def __init__(self) -> None:
        super().__init__(Handler)
        self.repositories = {
            "zai-org/chatglm3-6b": dict(MODEL),
            "ZhipuAI/chatglm3-6b": dict(MODEL),
            "someone/bins": {k: v for k, v in MODEL.items() if "safetensors" not in k},
            "FreedomIntelligence/huatuo26M-testdatasets": {"test_datasets.jsonl": ROWS},
            "FreedomIntelligence/huatuo_knowledge_graph_qa": {"train_datasets.jsonl": ROWS},
            **{
                repository: dict(EXAM)
                for ids, _ in hub.EXAMS.values()
                for repository in ids.values()
            },
        }
        self.status = 200
        self.lies: dict[str, bytes] = {}
        """File name to what is sent in its place, with the listed hash unchanged."""
        self.stall: dict[str, int] = {}
        """File name to the bytes after which nothing more comes."""
        self.stalled = threading.Event()
        self.log: list[tuple[str, str, str | None]] = []
        """Method, file name and Range of each request for a file."""


class Handler(stand_in.Handler):
    server: StandIn

    def answer(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        name = next((r for r in self.server.repositories if f"/{r}" in path + "/"), None)
        if self.server.status != 200:
            return self.json({"error": "no", "Message": "no"}, self.server.status)
        if name is None:
            return self.json({"error": "Repository not found"}, 404, "RepoNotFound")
        files = self.server.repositories[name]
        if path.startswith("/api/v1/"):
            if "FilePath" in query:
                return self.file(name, query["FilePath"][0])
            listing = [
                {
                    "Path": f,
                    "Type": "blob",
                    "Size": len(b),
                    "Sha256": hashlib.sha256(b).hexdigest(),
                }
                for f, b in files.items()
            ]
            return self.json({"Code": 200, "Success": True, "Data": {"Files": listing}})
        if match := re.search(r"/resolve/[^/]+/(.+)$", path):
            return self.file(name, match[1])
        if "/tree/" in path:
            return self.json([self.huggingface_entry(f, b) for f, b in files.items()])
        return self.json({"id": name, "sha": "a" * 40, "siblings": []})

    do_HEAD = do_GET = answer

    def huggingface_entry(self, name: str, content: bytes) -> dict[str, object]:
        entry = {"type": "file", "path": name, "size": len(content), "oid": "b" * 40}
        if not name.endswith((".json", ".md", ".py")):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        return entry

    def file(self, repository: str, name: str) -> None:
        published = self.server.repositories[repository][name]
        content = self.server.lies.get(name, published)
        wanted = self.headers.get("Range")
        self.server.log.append((self.command, name, wanted))
        start = int(re.fullmatch(r"bytes=(\d+)-.*", wanted)[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.sha256(published).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        if wanted:
            end = f"{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", f"bytes {start}-{end}")
        self.end_headers()
        if self.command == "HEAD":
            return
        until = self.server.stall.get(name, len(content))
        self.wfile.write(content[start:until])
        self.wfile.flush()
        if until < len(content):
            self.server.stalled.set()
            time.sleep(60)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    standin = StandIn()
    for variable, value in {
        "MEDQA_ROOT": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "MODELSCOPE_CACHE": str(tmp_path / "ms"),
        "HF_ENDPOINT": standin.url + "/",
        "MODELSCOPE_ENDPOINT": standin.url,
        "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
        "MODELSCOPE_API_MAX_RETRIES": "1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(variable, value)
    for variable in ("HF_HUB_OFFLINE", "HF_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    with standin.running():
        yield standin


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(root / "scripts/download.py"), *arguments]


def launch(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, *arguments), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("name", hub.HUBS)
def test_model_holds_what_import_needs_and_no_code(
    server: StandIn, tmp_path: Path, name: hub.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hub.download_model("chatglm3-6b", name)
    assert folder == tmp_path / "models/chatglm3-6b-original"
    assert {f.name for f in folder.iterdir()} == WANTED | {hub.RECORD}
    for file in WANTED:
        assert (folder / file).read_bytes() == MODEL[file]
    record = read(folder / hub.RECORD)
    assert record is not None
    assert record["sha256"][BIG] == hashlib.sha256(WEIGHTS).hexdigest()
    assert record["hub"] == name
    assert [f.name for f in (tmp_path / "models").iterdir()] == [folder.name]

    server.log.clear()
    capsys.readouterr()
    hub.download_model("chatglm3-6b", name)
    assert capsys.readouterr().out == "up to date: models/chatglm3-6b-original\n"
    assert not server.log


def test_bin_weights_are_taken_where_there_are_no_safetensors(server: StandIn) -> None:
    folder = hub.download_model("someone/bins", "huggingface")
    assert (folder / "pytorch_model-00001-of-00001.bin").is_file()
    assert not list(folder.glob("*.py"))


@pytest.mark.parametrize("name", hub.HUBS)
def test_data(server: StandIn, tmp_path: Path, name: hub.Hub) -> None:
    hub.download_data("huatuo26M-testdatasets", name)
    file = tmp_path / "data/raw/huatuo26M-testdatasets/test_datasets.jsonl"
    assert file.read_bytes() == ROWS


@pytest.mark.parametrize("name", hub.HUBS)
def test_a_killed_download_goes_on_where_it_stopped(
    server: StandIn, root: Path, tmp_path: Path, name: hub.Hub
) -> None:
    server.stall[BIG] = 3 * len(WEIGHTS) // 4
    with subprocess.Popen(
        command(root, "model", "--hub", name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        assert server.stalled.wait(60)
        deadline = time.monotonic() + 30
        partial: list[Path] = []
        while time.monotonic() < deadline and not partial:
            staging = tmp_path / "models/.chatglm3-6b-original.download"
            partial = [f for f in staging.rglob("*.incomplete") if f.stat().st_size > 0]
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert partial
    assert not (tmp_path / "models/chatglm3-6b-original").exists()

    server.stall.clear()
    server.log.clear()
    result = launch(root, "model", "--hub", name)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "models/chatglm3-6b-original" / BIG).read_bytes() == WEIGHTS
    ranges = [r for method, file, r in server.log if method == "GET" and file == BIG]
    assert ranges[0] is not None
    assert re.match(r"bytes=[1-9]", ranges[0])
    again = [f for method, f, _ in server.log if method == "GET" and f == "config.json"]
    assert not again, "a file that had arrived was fetched twice"


@pytest.mark.parametrize("name", hub.HUBS)
def test_a_wrong_file_is_removed_and_the_good_ones_are_kept(
    server: StandIn, root: Path, tmp_path: Path, name: hub.Hub
) -> None:
    server.lies[BIG] = bytes(len(WEIGHTS))
    result = launch(root, "model", "--hub", name)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "models/chatglm3-6b-original").exists()
    staging = tmp_path / "models/.chatglm3-6b-original.download"
    assert (staging / "tokenizer.model").read_bytes() == MODEL["tokenizer.model"]
    assert not (staging / BIG).exists()

    server.lies.clear()
    result = launch(root, "model", "--hub", name)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "models/chatglm3-6b-original" / BIG).read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", hub.HUBS)
def test_a_data_set_unlike_the_published_one_is_refused(
    server: StandIn, tmp_path: Path, name: hub.Hub
) -> None:
    with pytest.raises(DownloadError, match="expected 148,347,165 bytes, got 54,000"):
        hub.download_data("huatuo_knowledge_graph_qa", name)
    assert not (tmp_path / "data/raw/huatuo_knowledge_graph_qa").exists()


def test_known_hash_is_checked(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ("huatuo_knowledge_graph_qa", "train_datasets.jsonl")
    monkeypatch.setitem(hub.KNOWN, key, (len(ROWS), "00000000"))  # type: ignore[arg-type]
    with pytest.raises(DownloadError, match="expected SHA-256 00000000…"):
        hub.download_data("huatuo_knowledge_graph_qa", "huggingface")
    good = hashlib.sha256(ROWS).hexdigest()[:8]
    monkeypatch.setitem(hub.KNOWN, key, (len(ROWS), good))  # type: ignore[arg-type]
    folder = hub.download_data("huatuo_knowledge_graph_qa", "huggingface")
    assert (folder / "train_datasets.jsonl").read_bytes() == ROWS


def test_a_file_of_the_users_own_is_never_replaced(server: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "data/raw/huatuo26M-testdatasets/test_datasets.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    with pytest.raises(TargetError, match="lies there already and is not the published file"):
        hub.download_data("huatuo26M-testdatasets", "huggingface")
    assert file.read_bytes() == b"mine"
    file.write_bytes(ROWS)  # fetched by other means: checked and taken over
    hub.download_data("huatuo26M-testdatasets", "huggingface")
    assert not [entry for entry in server.log if entry[0] == "GET"]


@pytest.mark.parametrize("name", hub.HUBS)
def test_no_such_name(server: StandIn, root: Path, name: hub.Hub) -> None:
    result = launch(root, "model", "someone/else", "--hub", name)
    assert result.returncode == 1
    other = next(h for h in hub.HUBS if h != name)
    assert re.search(rf"error: cannot fetch .*HTTP 40.*--hub {other}", result.stderr)
    assert len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.parametrize("name", hub.HUBS)
@pytest.mark.parametrize("status", [401, 403])
def test_access_refused(server: StandIn, root: Path, name: hub.Hub, status: int) -> None:
    server.status = status
    result = launch(root, "model", "--hub", name)
    assert result.returncode == 1
    assert f"access refused (HTTP {status})" in result.stderr
    assert "TOKEN" in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.parametrize("name", hub.HUBS)
def test_nobody_listens(
    server: StandIn, root: Path, name: hub.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = {"huggingface": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT"}[name]
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    result = launch(root, "data", "huatuo26M-testdatasets", "--hub", name)
    assert result.returncode == 1
    assert variable in result.stderr
    assert "--hub" in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_a_full_disk_is_said_before_the_download(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DownloadError, match="free some, then run this again"):
        hub.download_model("chatglm3-6b", "huggingface")
    assert not server.log


def test_a_disk_that_fills_up(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(transfer._FETCHING, "huggingface", fetch)
    with pytest.raises(DownloadError, match="the disk is full; free some space"):
        hub.download_model("chatglm3-6b", "huggingface")


def test_consultations_are_refused() -> None:
    with pytest.raises(DataError, match="its answers are links"):
        hub.download_data("huatuo_consultation_qa", "huggingface")


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="did you mean 'huatuo_encyclopedia_qa'"):
        hub.download_data("huatuo_encyclopedia", "huggingface")
    for name in ("chatglm3-6", "a/b/c", "../x y"):
        with pytest.raises(ConfigError, match="neither owner/name nor known"):
            hub.download_model(name, "huggingface")


def test_a_source_that_names_its_hub_is_fetched_then_converted(
    server: StandIn, tmp_path: Path, root: Path
) -> None:
    rows = [
        {"q": f"第{n}种药{chr(0x4E00 + 7 * n)}怎么用？", "a": f"每次{n}片。"} for n in range(40)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    server.repositories["someone/finance"] = {"qa.jsonl.gz": gzip.compress(text), "a.py": b"1"}
    config = tmp_path / "own.yaml"
    config.write_text(
        "name: own\n"
        "sources:\n"
        "  - path: data/raw/finance/qa.jsonl.gz\n"
        "    source: own\n"
        "    hub: someone/finance\n"
        "    columns: {question: q, answer: a}\n"
        "min_question_chars: 2\nmax_question_chars: 100\n"
        "min_answer_chars: 2\nmax_answer_chars: 100\n"
        "test_share: 0.1\nseed: 1\n",
        encoding="utf-8",
    )
    for hub_name, code in (("modelscope", 0), ("huggingface", 0)):
        done = subprocess.run(
            [sys.executable, str(root / "scripts/convert.py"), str(config), "--hub", hub_name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert not (tmp_path / "data/raw/finance/a.py").exists()
    assert [name for _, name, _ in server.log if name == "a.py"] == []
    train = (tmp_path / "data/processed/own/train.jsonl").read_text(encoding="utf-8")
    assert train.count("\n") == 36
    assert "up to date" in done.stdout


def test_a_hub_without_the_file_is_said(server: StandIn, tmp_path: Path) -> None:
    server.repositories["someone/finance"] = {"other.jsonl": ROWS}
    with pytest.raises(DownloadError, match=r"holds no qa\.jsonl \(found: other\.jsonl\)"):
        hub.download_file("someone/finance", tmp_path / "data/raw/f/qa.jsonl", "huggingface")
    with pytest.raises(ConfigError, match="'finance' is not owner/name"):
        hub.download_file("finance", tmp_path / "qa.jsonl", "huggingface")


@pytest.mark.parametrize("name", hub.HUBS)
def test_examinations_come_with_their_folders_and_nothing_else(
    server: StandIn, tmp_path: Path, root: Path, name: hub.Hub
) -> None:
    known = [exam for exam, (ids, _) in hub.EXAMS.items() if name in ids]
    done = launch(root, "exams", *known, "--hub", name)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "data/raw/exams"
    for exam in known:
        files = {file.relative_to(folder / exam).as_posix() for file in _files(folder / exam)}
        assert files == {*hub.EXAMS[exam][1], hub.RECORD}
        for file in hub.EXAMS[exam][1]:
            assert (folder / exam / file).read_bytes() == EXAM[file]
    assert {file.name for file in folder.iterdir()} == set(known), "no folder of a download is left"
    fetched = [file for method, file, _ in server.log if method == "GET"]
    assert not set(fetched) & {"cmmlu.py", "CMB-Exam/CMB-train/CMB-train-merge.json"}
    server.log.clear()
    assert "up to date: data/raw/exams/cmb" in launch(root, "exams", "cmb", "--hub", name).stdout
    assert not server.log


def test_examinations_that_are_not_there(server: StandIn) -> None:
    with pytest.raises(ConfigError, match="did you mean 'cmmlu'"):
        hub.download_exam("cmmu", "huggingface")
    with pytest.raises(ConfigError, match="not known on modelscope; run with --hub huggingface"):
        hub.download_exam("cmexam", "modelscope")
    server.repositories["haonan-li/cmmlu"] = {f"test/{n}.parquet": b"x" for n in range(67)}
    with pytest.raises(DownloadError, match=r"holds no cmmlu_v1_0_1\.zip .* and 47 more\)"):
        hub.download_exam("cmmlu", "huggingface")


def test_an_evaluation_fetches_what_it_names(server: StandIn, tmp_path: Path, root: Path) -> None:
    """Then it looks at the files, which here are not what they must be."""
    task = tmp_path / "configs/exams/cmb.yaml"
    task.parent.mkdir(parents=True)
    task.write_bytes((root / "configs/exams/cmb.yaml").read_bytes())
    script, config = root / "scripts/evaluate.py", root / "configs/chatglm3-6b/evaluate.yaml"
    rest = [f"exams.{exam}=null" for exam in hub.EXAMS if exam != "cmb"]
    done = subprocess.run(
        [sys.executable, script, config, *rest], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout.startswith("data/raw/exams/cmb: 2 files")
    assert "CMB-val-merge.json has no question that can be asked (1 broken_row)" in done.stderr
    assert not (tmp_path / "data/raw/exams/cmmlu").exists()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
