"""Each remedy works, is taken back, and is still needed."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medqa import remedies
from medqa.errors import CheckpointError, TargetError
from medqa.export.modelfile import STOPS

# LLaMA-Factory's own frame; ours for `make export` says more (medqa/export/modelfile.py).
TEMPLATE = (
    "[gMASK]sop{{ if .System }}<|system|>\n {{ .System }}{{ end }}"
    '{{ range .Messages }}{{ if eq .Role "user" }}<|user|>\n {{ .Content }}<|assistant|>'
    '{{ else if eq .Role "assistant" }}\n {{ .Content }}{{ end }}{{ end }}'
)

pytestmark = pytest.mark.filterwarnings("ignore")  # importing LLaMA-Factory warns


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medqa.model.importer import import_model

    target = tmp_path_factory.mktemp("models") / "tiny"
    import_model(root / "tests/fixtures/golden", target, dtype="float32", origin="golden")
    return target


def test_modelfile(folder: Path) -> None:
    from llamafactory.data.template import TEMPLATES
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = TEMPLATES["chatglm3"]
    with pytest.raises(ValueError, match="Dict is not supported"):
        template.get_ollama_modelfile(tokenizer)
        pytest.fail("LLaMA-Factory writes this Modelfile itself now: delete the remedy")
    with remedies.applied():
        text = template.get_ollama_modelfile(tokenizer)
    assert f'TEMPLATE """{TEMPLATE}"""' in text
    for stop in STOPS:
        assert f'PARAMETER stop "{stop}"\n' in text
    with pytest.raises(ValueError, match="Dict is not supported"):
        template.get_ollama_modelfile(tokenizer)


def test_the_space_between_text_slots_is_still_left_out(folder: Path) -> None:
    from llamafactory.data.template import TEMPLATES, Template
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    slots = TEMPLATES["chatglm3"].format_assistant.apply()
    upstream = Template._convert_slots_to_ollama(slots, tokenizer, ".Content")
    assert upstream == "\n{{ .Content }}", "upstream writes the space now: delete that part"


def test_the_chat_template_needs_no_remedy(folder: Path) -> None:
    """LLaMA-Factory cannot make one of its chatglm3 slots either, and leaves the imported one."""
    from llamafactory.data.template import TEMPLATES
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = tokenizer.chat_template
    TEMPLATES["chatglm3"].fix_jinja_template(tokenizer)
    assert tokenizer.chat_template == before
    assert before


@pytest.fixture
def with_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose code leaves a file named "ran"."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    code = f"""
from pathlib import Path
from transformers import GlmConfig

Path({str(tmp_path / "ran")!r}).touch()

class Config(GlmConfig):
    model_type = "with_code"
"""
    target = tmp_path / "with_code"
    target.mkdir()
    (target / "configuration.py").write_text(code, encoding="utf-8")
    config = {"model_type": "with_code", "auto_map": {"AutoConfig": "configuration.Config"}}
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


def as_the_page_asks(model: Path) -> Any:
    return SimpleNamespace(
        model_name_or_path=str(model),
        trust_remote_code=True,
        cache_dir=None,
        model_revision="main",
        hf_hub_token=None,
    )


def test_the_page_still_runs_what_a_checkpoint_brings(with_code: Path) -> None:
    from llamafactory.model import loader

    loader.load_config(as_the_page_asks(with_code))
    assert (with_code.parent / "ran").exists()


def test_no_code_of_a_checkpoint_is_run(with_code: Path, folder: Path) -> None:
    from llamafactory.model import loader

    with remedies.applied():
        with pytest.raises(CheckpointError, match=r"import_model\.py"):
            loader.load_config(as_the_page_asks(with_code))
        (with_code / "configuration.py").unlink()
        with pytest.raises(CheckpointError, match=r"\(auto_map\)"):
            loader.load_config(as_the_page_asks(with_code))
        asked = as_the_page_asks(folder)
        assert loader.load_config(asked).model_type == "glm"
        assert asked.trust_remote_code is False
    assert not (with_code.parent / "ran").exists()


ON = SimpleNamespace(enable_liger_kernel=True)


def test_liger_still_leaves_glm_as_it_was(folder: Path) -> None:
    from llamafactory.model.model_utils.liger_kernel import apply_liger_kernel
    from transformers import GlmConfig, GlmForCausalLM

    before = GlmForCausalLM.forward
    apply_liger_kernel(GlmConfig.from_pretrained(folder), ON, True, False)
    assert GlmForCausalLM.forward is before, "upstream patches GLM now: delete the remedy"


def test_liger_reaches_glm_and_trains_alike(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel needs a GPU; here its loss is written out in torch, all around it is the real."""
    import liger_kernel.transformers.model.glm4 as liger
    import torch
    from llamafactory.model import loader
    from torch.nn.functional import cross_entropy
    from transformers import GlmConfig, GlmForCausalLM

    calls = []

    def written_out(hidden_states: Any, lm_head_weight: Any, labels: Any, **rest: Any) -> Any:
        calls.append(rest["num_items_in_batch"])
        logits = hidden_states[:, :-1] @ lm_head_weight.T
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        return loss / rest["num_items_in_batch"]

    monkeypatch.setattr(liger, "LigerForCausalLMLoss", written_out)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    model = GlmForCausalLM.from_pretrained(folder).train()
    ids = torch.randint(3, 480, (2, 12), generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(torch.arange(12) < 4, -100)
    batch = {"input_ids": ids, "labels": labels, "num_items_in_batch": torch.tensor(16)}

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        weight = model.model.layers[0].self_attn.q_proj.weight
        assert weight.grad is not None
        return loss.detach(), weight.grad.clone()

    plain, plain_grad = step()
    assert not calls
    upstream = GlmForCausalLM.forward
    with remedies.applied():
        loader.apply_liger_kernel(GlmConfig.from_pretrained(folder), ON, True, False)
        fused, fused_grad = step()
        assert len(calls) == 1
        logits = model.eval()(ids).logits
        assert logits.shape == (2, 12, 512)
    assert GlmForCausalLM.forward is upstream
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(fused_grad, plain_grad)


@pytest.mark.parametrize(
    ("enabled", "trains", "needs_logits", "accelerator"),
    [
        (False, True, False, True),
        (True, False, False, True),
        (True, True, True, True),
        (True, True, False, False),
    ],
)
def test_liger_only_where_it_was_asked_for_and_can_run(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    enabled: bool,
    trains: bool,
    needs_logits: bool,
    accelerator: bool,
) -> None:
    import torch
    from llamafactory.model import loader
    from transformers import GlmConfig, GlmForCausalLM

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    monkeypatch.setattr(loader, "apply_liger_kernel", lambda *_: None)
    before = GlmForCausalLM.forward
    with remedies.applied():
        arguments = SimpleNamespace(enable_liger_kernel=enabled)
        config = GlmConfig.from_pretrained(folder)
        loader.apply_liger_kernel(config, arguments, trains, needs_logits)
        assert GlmForCausalLM.forward is before


def test_the_page_still_starts_what_is_first_on_the_path() -> None:
    from llamafactory.webui.runner import Runner

    assert "llamafactory-cli" in Runner._launch.__code__.co_consts, "delete the remedy"


def test_the_page_starts_our_worker_in_a_session_of_its_own() -> None:
    from llamafactory.webui import runner

    with remedies.in_webui():
        started = runner.Popen(["llamafactory-cli", "train", "--help"], stdout=-1, text=True)
        try:
            assert started.args == [sys.executable, "-m", "medqa.train.worker", "--help"]
            assert os.getsid(started.pid) == started.pid
        finally:
            started.kill()
            started.communicate()


def exported(target: Path) -> list[str]:
    """What the page's export says."""
    from llamafactory.webui.components.export import save_model

    asked = ("zh", "ChatGLM3-6B-Chat", "models/m", "lora", ["a"], "chatglm3", 5, "none", "", "cpu")
    return list(save_model(*asked, False, str(target), "", "{}"))


def test_the_page_exports_into_a_new_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafactory.webui.components import export

    written = []
    monkeypatch.setattr(export, "export_model", lambda args: written.append(args["export_dir"]))
    (tmp_path / "weights").touch()
    exported(tmp_path)
    assert written == [str(tmp_path)], "the page takes care itself now: delete the remedy"
    with remedies.in_webui():
        with pytest.raises(TargetError, match="已存在"):
            exported(tmp_path)
        new = tmp_path / "new"
        assert exported(new)[-1] == "模型导出完成。"
        new.mkdir()
        exported(new)
    assert written[1:] == [str(new)] * 2


def test_the_preview_of_data_is_json() -> None:
    from gradio.data_classes import JsonData
    from gradio.routes import ORJSONResponse

    answer = {"data": [JsonData(root=[{"问": "答"}])], "when": Path("x")}
    assert b"root=" in ORJSONResponse._render(answer), "Gradio does it itself now: delete it"
    with remedies.in_webui():
        written = json.loads(ORJSONResponse._render(answer))
    assert written == {"data": [[{"问": "答"}]], "when": "x"}


LAUNCH = ["medqa", "train", "my recipe.yaml", "output_dir=saves/my run"]
SWITCHES = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2", "NNODES": "3", "NODE_RANK": "1"}
ADDRESS = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RDZV_ID", "MIN_NNODES", "MAX_NNODES", "USE_RAY", "USE_KT", "USE_MCA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (SWITCHES | ADDRESS).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", list(LAUNCH))


def test_llamafactory_still_starts_torchrun_on_its_own_file(
    switches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafactory import launcher

    commands = []
    stand_in = SimpleNamespace(run=lambda command, **_: commands.append(command))
    monkeypatch.setattr(launcher, "subprocess", stand_in)
    with pytest.raises(AttributeError):  # what the stand-in returns has no exit code
        launcher.launch()
    at = commands[0].index(launcher.__file__)
    # As a child that it waits for, by name, with the arguments torn: delete the remedy otherwise.
    assert commands[0][0] == "torchrun"
    assert commands[0][at + 1 :] == ["my", "recipe.yaml", "output_dir=saves/my", "run"]


@pytest.mark.parametrize("elastic", [False, True])
def test_the_launcher_becomes_torchrun_on_our_worker(
    switches: None, monkeypatch: pytest.MonkeyPatch, elastic: bool
) -> None:
    from llamafactory import launcher

    if elastic:
        monkeypatch.setenv("RDZV_ID", "7")
        monkeypatch.setenv("MAX_RESTARTS", "5")
    became: list[Any] = []

    def execve(*given: Any) -> None:
        became.extend(given)
        raise SystemExit  # a real one does not return

    monkeypatch.setattr(os, "execve", execve)
    file = launcher.__file__
    with remedies.applied(), pytest.raises(SystemExit):
        launcher.launch()
    assert launcher.__file__ == file
    program, command, environment = became
    assert command[:3] == [program, "-m", "torch.distributed.run"]
    assert command[-4:] == ["--module", "medqa.train.worker", *LAUNCH[2:]]
    from torch.distributed.run import parse_args

    options = parse_args(command[3:])
    assert (options.nnodes, options.nproc_per_node) == ("3", "2")
    if elastic:
        assert (options.rdzv_id, options.max_restarts) == ("7", 5)
        assert options.rdzv_endpoint == "10.0.0.1:29500"
    else:
        assert (options.node_rank, options.master_addr) == (1, "10.0.0.1")
        assert options.master_port == 29500
    # What LLaMA-Factory sets for torchrun's processes.
    assert environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"


def test_llamafactory_still_asks_ray_for_ten_cpus_for_every_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from llamafactory.train import trainer_utils

    asked = []
    monkeypatch.setattr(
        trainer_utils, "placement_group", lambda bundles, strategy: asked.extend(bundles)
    )
    trainer_utils.get_placement_group(4)
    assert asked == [{"CPU": 10}] * 4, "upstream asks for less now: delete the remedy"
    known = {"placement_group": None, "bundle_idx": 0, "rank": 0, "world_size": 1}
    known |= {"master_addr": "", "master_port": "", "env": {}}
    assert trainer_utils.get_ray_remote_config_for_worker(**known)["num_cpus"] == 10


def test_llamafactory_still_asks_rays_dashboard_for_the_head() -> None:
    from llamafactory.train import trainer_utils

    names = trainer_utils.get_ray_head_node_ip.__code__.co_names
    assert "list_nodes" in names, "upstream asks Ray itself now: delete that part"


HEAD = {"node:__internal_head__": 1.0}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([{"CPU": 8.0, "GPU": 1.0}], 8),  # a box with one card, where 10 never come
        ([{"CPU": 8.0, "GPU": 4.0}, {"CPU": 64.0, "GPU": 8.0}], 2),
        ([{"CPU": 128.0, "GPU": 8.0}], 10),
        ([{"CPU": 2.0, "GPU": 4.0}], 1),
        ([{"CPU": 4.0}, {"CPU": 32.0, "GPU": 4.0}], 8),  # the head has no card
        ([{"CPU": 4.0}], 1),
    ],
)
def test_a_ray_worker_gets_its_share_of_a_machine(
    resources: list[dict[str, float]], expected: int
) -> None:
    dead = {"Alive": False, "Resources": {}, "NodeManagerAddress": "10.0.0.9"}
    nodes = [dead] + [
        {"Alive": True, "Resources": found, "NodeManagerAddress": f"10.0.0.{i}"}
        for i, found in enumerate(resources)
    ]
    assert remedies._cpus_per_worker(nodes) == expected
    nodes[-1]["Resources"] = resources[-1] | HEAD
    assert remedies._head(nodes) == f"10.0.0.{len(resources) - 1}"
