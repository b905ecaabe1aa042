"""LlamaBoard in a real browser: the whole procedure by clicks, behind a proxy, and its end."""

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from medqa.data import registry
from medqa.export.modelfile import STOPS
from medqa.model.importer import import_model
from tests.browser import chromium
from tests.train.board import (
    EXPORTED,
    FINISHED,
    LOADED,
    SAVED,
    SECONDS,
    Board,
    explained,
    free_port,
    running,
)
from tests.train.proxy import proxy

pytestmark = pytest.mark.slow

MODEL, QUESTION, ANSWER = "models/tiny", "感冒了怎么办？", "多喝水，好好休息。"
SAVES = "saves/ChatGLM3-6B-Chat/lora"
QUICK = {
    "lora_rank": 8,
    "cutoff_len": 128,
    "num_train_epochs": 60.0,
    "logging_steps": 1,
    "eval_steps": 10,
    "save_steps": 10,
    "warmup_steps": 2,
    "learning_rate": 1e-2,
    "early_stopping_steps": 100_000,  # it ends when it is told to
}
"""What the golden checkpoint needs to learn one answer by heart in a few seconds."""


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an imported golden checkpoint, the tiny recipe and a small data set."""
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    for name in ("HOST", "NAME", "PORT", "SHARE", "ROOT_PATH", "SERVER_NAME", "SERVER_PORT"):
        monkeypatch.delenv(f"GRADIO_{name}", raising=False)
    import_model(root / "tests/fixtures/golden", tmp_path / MODEL, dtype="float32", origin="golden")
    configs = tmp_path / "configs/tiny"
    configs.mkdir(parents=True)
    shutil.copy(root / "configs/tiny/chat.yaml", configs)
    recipe = yaml.safe_load((root / "configs/tiny/lora_sft.yaml").read_text("utf-8")) | QUICK
    (configs / "lora_sft.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    row = {"instruction": QUESTION, "input": "", "output": ANSWER}
    files = {}
    for split in ("train", "val"):
        files[f"sample_{split}"] = file = tmp_path / f"data/processed/sample/{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((json.dumps(row) + "\n") * 8, encoding="utf-8")
    registry.register(files)
    return tmp_path


def recipe(project: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((project / "configs/tiny/lora_sft.yaml").read_text("utf-8")))


@pytest.fixture
def page() -> Iterator[Any]:
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1400, "height": 1000}, locale="zh-CN")


def processes(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def test_the_procedure_of_the_paper_by_clicks(project: Path, page: Any) -> None:
    loaded: list[str] = []
    page.on("requestfinished", lambda request: loaded.append(request.url))
    with running(project) as server, explained(page, server):
        board = Board(page, server.url)
        pick_and_preview(board, project)
        trained = train(board, project)
        listening = {
            connection.laddr.ip
            for process in processes(server.process.pid)
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        answer = chat(board, trained.name)
        exported = export(board, project)
    assert str(answer.text_content()).strip() == ANSWER
    foreign = [url for url in loaded if not url.startswith((server.url, "data:", "blob:"))]
    assert foreign == [], "the page must load nothing from elsewhere"
    same_answers(project / MODEL, trained, exported)
    modelfile = (exported / "Modelfile").read_text("utf-8")
    assert 'TEMPLATE """[gMASK]sop' in modelfile
    assert all(f'PARAMETER stop "{stop}"\n' in modelfile for stop in STOPS)
    for name in ("chat_template.jinja", "tokenizer.json", "generation_config.json"):
        assert (exported / name).read_bytes() == (project / MODEL / name).read_bytes()


def pick_and_preview(board: Board, project: Path) -> None:
    board.expect_value("模型路径", str(project / MODEL))
    board.expect_value("对话模板", "chatglm3")
    board.choose("模型名称", "ChatGLM3-6B-Chat")
    board.choose("数据集", "sample_train")
    board.button("预览数据集").click()
    preview = board.page.locator(".modal-box")
    preview.get_by_text(f'"{QUESTION}"').first.wait_for()
    board.button("关闭").click()
    preview.wait_for(state="hidden")


def train(board: Board, project: Path) -> Path:
    board.button("开始").click()
    curve = board.page.locator(".matplotlib img")
    curve.wait_for()  # while it trains
    board.page.get_by_text(FINISHED).first.wait_for()
    assert curve.evaluate("image => image.complete && image.naturalWidth") >= 300
    (trained,) = (project / SAVES).iterdir()
    assert (trained / "adapter_model.safetensors").is_file()
    # A run from the page and one from the YAML are the same; the page leaves false out.
    ran = yaml.safe_load((trained / "training_args.yaml").read_text("utf-8"))
    asked = recipe(project) | {
        "model_name_or_path": str(project / MODEL),
        "output_dir": str(trained.relative_to(project)),
    }
    assert {key: ran.get(key, False) for key in asked} == asked
    return trained


def chat(board: Board, adapter: str) -> Any:
    """Asks; returns the place of the answer, which may still grow."""
    board.choose("检查点路径", adapter)
    board.tab("Chat")
    board.button("加载模型").click()
    board.wait_for_value(LOADED)
    board.page.get_by_placeholder("输入...").locator("visible=true").fill(QUESTION)
    board.button("提交").click()
    answer = board.page.locator(".message.bot").last
    answer.filter(has_text=ANSWER).wait_for()
    return answer


def export(board: Board, project: Path) -> Path:
    board.tab("Export")
    target = project / "models/tiny-webui"
    board.expect_value("导出目录", str(target.relative_to(project)))
    board.button("开始导出").click()
    board.wait_for_value(EXPORTED)
    before = {file: file.stat().st_mtime_ns for file in target.iterdir()}
    board.button("开始导出").click()
    board.page.get_by_text("里面的内容不会被覆盖").first.wait_for()
    assert {file: file.stat().st_mtime_ns for file in target.iterdir()} == before
    return target


def same_answers(base: Path, adapter: Path, exported: Path) -> None:
    """By transformers and PEFT alone: the exported model is the base with its adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported)
    asked = [{"role": "user", "content": QUESTION}]
    ids = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    merged = AutoModelForCausalLM.from_pretrained(exported).eval()
    plain = AutoModelForCausalLM.from_pretrained(base)
    tuned = PeftModel.from_pretrained(plain, adapter).eval()
    with torch.inference_mode():
        torch.testing.assert_close(merged(ids).logits, tuned(ids).logits, rtol=1e-4, atol=1e-4)
        outputs = [m.generate(ids, do_sample=False, max_new_tokens=64) for m in (merged, tuned)]
    assert outputs[0].tolist() == outputs[1].tolist()
    said = tokenizer.decode(outputs[0][0, ids.shape[1] :], skip_special_tokens=True)
    assert said.strip() == ANSWER


def test_behind_a_proxy_it_trains_and_ctrl_c_ends_all(project: Path, page: Any) -> None:
    path = "/proxy/6006"
    missing: list[str] = []
    page.on("response", lambda answer: missing.append(answer.url) if answer.status > 399 else None)
    with running(project, "--root-path", path) as server:
        with proxy(server.url, path, free_port(), late=1.0) as url, explained(page, server):
            board = Board(page, url)
            board.button("预览数据集").click()
            page.locator(".modal-box").get_by_text(f'"{QUESTION}"').first.wait_for()
            board.button("关闭").click()
            board.box("训练轮数").fill("100000")
            board.button("保存训练参数").click()
            page.get_by_text(SAVED).first.wait_for()
            board.button("开始").click()  # the stream of the event before has just ended
            page.get_by_text(re.compile("'loss': ")).first.wait_for()
            page.close()
        running_now = processes(server.process.pid)
        assert any("medqa.train.worker" in process.cmdline() for process in running_now)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(SECONDS) == 0
        assert psutil.wait_procs(running_now, 5)[1] == []
        assert "Traceback" not in server.said()
    assert [url for url in missing if not url.endswith("/favicon.ico")] == []
