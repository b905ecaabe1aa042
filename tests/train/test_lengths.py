"""Lengths counted without LLaMA-Factory are those that it makes itself."""

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from medqa.errors import ConfigError, DataError, MissingInputError
from medqa.train.lengths import lengths, packed
from tests.train.batches import encode, write_rows

MODEL = "models/tiny"
VALUES: dict[str, Any] = {
    "model_name_or_path": MODEL,
    "stage": "sft",
    "template": "chatglm3",
    "dataset": "qa",
    "dataset_dir": "data",
    "cutoff_len": 96,
    "split_special_tokens": True,
}
PACKED = VALUES | {"packing": True, "neat_packing": True}
TEXT = {"columns": {"prompt": "text"}}
RANKED = {
    "ranking": True,
    "columns": {
        "prompt": "instruction",
        "query": "input",
        "chosen": "chosen",
        "rejected": "rejected",
    },
}


@pytest.fixture(scope="module")
def tokenizer(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the tokenizer of the golden checkpoint."""
    from medqa.model.importer import import_model

    target = tmp_path_factory.mktemp("models") / "golden"
    import_model(root / "tests/fixtures/golden", target, dtype="float32", origin="golden")
    return target


@pytest.fixture
def project(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / MODEL).symlink_to(tokenizer)
    return tmp_path


def made_up(count: int, *, seed: int = 0) -> list[dict[str, str]]:
    """Returns rows of all lengths, some empty, with text that looks like control tokens."""
    chance = random.Random(seed)
    words = ["血压", "头痛", "<|user|>", "</s>", "\n", " ", "aspirin", "，", "100 mg", "[gMASK]"]

    def text(longest: int) -> str:
        return "".join(chance.choices(words, k=chance.randrange(longest)))

    return [
        {
            "instruction": text(12),
            "input": text(4),
            "output": text(24),
            "chosen": text(20),
            "rejected": text(20),
            "text": text(40),
        }
        for _ in range(count)
    ]


def test_each_token_of_the_template_is_counted(project: Path) -> None:
    write_rows(project, [{"instruction": "a", "input": "", "output": ""}])
    # [gMASK] sop <|user|> ▁ \n ▁ a <|assistant|> ▁ \n </s>
    assert lengths(VALUES).longest == 11
    write_rows(project, [{"instruction": "a", "input": "a", "output": "a"}])
    # … "▁ a \n a" and "▁ a"
    assert lengths(VALUES).longest == 15
    # … <|system|> ▁ \n ▁ a
    assert lengths(VALUES | {"default_system": "a"}).longest == 20


def test_figures(project: Path) -> None:
    row = {"instruction": "a", "input": ""}
    write_rows(project, [row | {"output": "a" * n} for n in range(1, 101)])
    found = lengths(VALUES | {"cutoff_len": 64, "per_device_train_batch_size": 1})
    assert (found.rows, found.sampled, found.packs) == (100, 100, 100)
    assert (found.p50, found.p90, found.p99, found.longest) == (62, 102, 111, 112)
    assert found.mean == 62.5
    assert found.cut == 0.48
    real = [min(n + 12, 64) for n in range(1, 101)]
    assert found.tokens == sum(real)
    assert found.computed == sum(math.ceil(n / 8) * 8 for n in real)
    assert found.padding == pytest.approx(1 - sum(real) / found.computed)
    assert lengths(VALUES | {"per_device_train_batch_size": 16}).padding > 5 * found.padding


def test_a_sample_is_the_same_every_time_and_says_so(project: Path) -> None:
    write_rows(project, made_up(3000))
    whole, found = lengths(PACKED, sample=3000), lengths(PACKED, sample=1000)
    assert (found.rows, found.sampled) == (3000, 1000)
    assert found == lengths(PACKED, sample=1000)
    for name in ("tokens", "computed", "packs", "mean", "padding", "cut"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=0.07), name


def test_max_samples_takes_the_first_rows_of_each_set(project: Path) -> None:
    rows = made_up(20)
    write_rows(project, rows[:10], "one")
    write_rows(project, rows[10:], "two")
    both = VALUES | {"dataset": "one, two"}
    assert lengths(both).rows == 20
    write_rows(project, rows[:4] + rows[10:14])
    assert lengths(both | {"max_samples": 4}) == lengths(VALUES)


def test_blank_lines_are_no_rows(project: Path) -> None:
    write_rows(project, made_up(3))
    before = lengths(VALUES)
    file = project / "data/qa.jsonl"
    file.write_text(file.read_text("utf-8").replace("\n", "\n\n"), encoding="utf-8")
    assert lengths(VALUES) == before


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"template": "glm4"}, ConfigError, "expected chatglm3, found 'glm4'"),
        ({"dataset": "nobody"}, MissingInputError, "'nobody'.*scripts/convert.py"),
        ({"dataset": ""}, DataError, "expected rows in the key dataset, found none"),
        ({"model_name_or_path": "models/none"}, MissingInputError, r"tokenizer.json.*make model"),
        ({"dataset": "broken"}, DataError, "broken.jsonl: the row at byte 0 is not JSON"),
        ({"dataset": "empty"}, DataError, "expected rows in data/empty.jsonl, found none"),
        ({"dataset": "number"}, DataError, "was expected as a text, found a row .'instruction'"),
        ({"dataset": "shared"}, DataError, "'shared' was expected .* form sharegpt"),
        ({"dataset": "older"}, DataError, "'older' was expected .* history"),
    ],
)
def test_wrong_input_is_named(
    project: Path, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    rows = [{"instruction": "q", "input": "", "output": "a"}]
    write_rows(project, rows)
    write_rows(project, [], "empty")
    write_rows(project, [rows[0] | {"output": 3}], "number")
    write_rows(project, rows, "shared", formatting="sharegpt")
    write_rows(project, rows, "older", columns={"prompt": "instruction", "history": "old"})
    write_rows(project, rows, "broken")
    (project / "data/broken.jsonl").write_text("{'q'}\n", encoding="utf-8")
    with pytest.raises(error, match=said):
        lengths(VALUES | change)


def test_it_needs_neither_torch_nor_llamafactory(project: Path, root: Path) -> None:
    import subprocess

    write_rows(project, made_up(10))
    code = (
        "import json, sys; from medqa.train.lengths import lengths; "
        f"lengths(json.loads({json.dumps(VALUES)!r})); "
        "print(sorted({'torch', 'transformers', 'llamafactory'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # importing LLaMA-Factory warns
def test_packs_are_llamafactorys() -> None:
    from llamafactory.data.processor.processor_utils import greedy_knapsack

    chance = random.Random(0)
    for _ in range(50):
        numbers = [chance.randrange(1, 100) for _ in range(chance.randrange(200))]
        assert packed(numbers, 100) == greedy_knapsack(list(numbers), 100)
    with pytest.raises(ValueError, match="101 tokens do not fit"):
        packed([101], 100)


KINDS = {
    "supervised": ({}, {}),
    "control tokens in text": ({"split_special_tokens": False}, {}),
    "system": ({"default_system": "医生"}, {}),
    "packed": ({"packing": True, "neat_packing": True}, {}),
    "packed by three": (
        {"neat_packing": True, "preprocessing_num_workers": 3, "preprocessing_batch_size": 40},
        {},
    ),
    "preference": ({"stage": "dpo"}, RANKED),
    "text": ({"stage": "pt", "packing": False}, TEXT),
    "text, stream": ({"stage": "pt"}, TEXT),
    "text, stream, asked for": ({"stage": "pt", "packing": True, "cutoff_len": 64}, TEXT),
    "text, end token whole": ({"stage": "pt", "split_special_tokens": False}, TEXT),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # importing LLaMA-Factory warns
@pytest.mark.parametrize("kind", KINDS)
def test_lengths_are_those_of_llamafactory(
    kind: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, entry = KINDS[kind]
    write_rows(project, made_up(250), **entry)
    compare(project, monkeypatch, VALUES | change)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # importing LLaMA-Factory warns
@pytest.mark.parametrize("cutoff_len", [256, 1024])
def test_real_rows_have_the_same_lengths(
    cutoff_len: int, project: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shared / "huatuo/huatuo26M-testdatasets.part1.jsonl"
    with file.open(encoding="utf-8") as lines:
        raw = [json.loads(line) for line, _ in zip(lines, range(1500), strict=False)]
    write_rows(
        project,
        [{"instruction": row["questions"], "input": "", "output": row["answers"]} for row in raw],
    )
    compare(project, monkeypatch, PACKED | {"cutoff_len": cutoff_len})
    compare(project, monkeypatch, VALUES | {"cutoff_len": cutoff_len})


def compare(project: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]) -> None:
    """Asserts that rows, packs and tokens are those of LLaMA-Factory's own encoding."""
    found = lengths(values)
    rows = encode(project, monkeypatch, values).rows
    assert found.packs == len(rows)
    real, computed = 0, 0
    for name in ("attention_mask", "chosen_attention_mask", "rejected_attention_mask"):
        masks = rows[name] if name in rows.column_names else []
        real += sum(sum(place > 0 for place in mask) for mask in masks)
        computed += sum(math.ceil(len(mask) / 8) * 8 for mask in masks)
    assert found.tokens == real
    if "packing_params" in rows.column_names:
        assert found.computed == computed
