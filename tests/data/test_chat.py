"""ChatGLM3's chat format, held equal to LLaMA-Factory's template with the real tokenizer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medqa.data import chat
from medqa.data.chat import Chat, kept
from medqa.errors import CheckpointError

from ..model.original_chatglm import write_checkpoint

PAIRS = [
    ("饮酒以后可以服用西地那非吗", "不可以。\n请咨询医生。"),
    ("", ""),
    (" a  b\tc ", "　全角空格　"),
    ("<|user|>[gMASK]sop</s>你好<|assistant|>", "</s><|observation|>是普通文字"),
    ("血压120/80mmHg，体温38.5℃😀𠮷", "x" * 700),
    ("问" * 900, "答" * 900),
    ("问" * 900, "短"),
]

LLAMAFACTORY = """
import json, sys
from types import SimpleNamespace
from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
from llamafactory.data.template import get_template_and_fix_tokenizer
from llamafactory.hparams import DataArguments
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], split_special_tokens=True)
made = []
for cutoff in json.loads(sys.argv[2]):
    arguments = DataArguments(template="chatglm3", cutoff_len=cutoff)
    template = get_template_and_fix_tokenizer(tokenizer, arguments)
    processor = SupervisedDatasetProcessor(template, tokenizer, None, arguments)
    for question, answer in json.loads(sys.argv[3]):
        made.append(processor._encode_data_example(
            [{"role": "user", "content": question}],
            [{"role": "assistant", "content": answer}], None, None, [], [], []))
print("MADE", json.dumps(made))
"""


@pytest.fixture(scope="module")
def model(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of ChatGLM3's vocabulary with its real tokenizer, imported."""
    from medqa.model.importer import import_model

    folder = tmp_path_factory.mktemp("real")
    shape = {"padded_vocab_size": 65024, "hidden_size": 8, "num_layers": 1, "seq_length": 8192}
    write_checkpoint(folder / "source", shared / "chatglm3" / "tokenizer.model", shape)
    import_model(folder / "source", folder / "target", dtype="keep", origin="test")
    return folder / "target"


@pytest.mark.slow
def test_ids_labels_and_cuts_are_llamafactorys(model: Path) -> None:
    cutoffs = [4096, 1024, 512, 64]
    done = subprocess.run(
        [sys.executable, "-c", LLAMAFACTORY, model, json.dumps(cutoffs), json.dumps(PAIRS)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("MADE ")]
    encoder = Chat(model)
    expected = []
    for cutoff in cutoffs:
        for question, answer in PAIRS:
            pair = encoder.encode(question, answer)
            asked, said = kept(len(pair.prompt), len(pair.answer), cutoff)
            trained = [*pair.answer[:said], encoder.end]
            expected.append([[*pair.prompt[:asked], *trained], [-100] * asked + trained])
            assert pair.length <= cutoff or (asked, said) != (len(pair.prompt), len(pair.answer))
    assert json.loads(line[5:]) == expected


@pytest.mark.slow
def test_lengths_are_those_of_encode(model: Path) -> None:
    encoder = Chat(model)
    pairs = [encoder.encode(question, answer) for question, answer in PAIRS]
    prompts, answers = encoder.lengths([q for q, _ in PAIRS], [a for _, a in PAIRS])
    assert prompts == [len(pair.prompt) for pair in pairs]
    assert answers == [len(pair.answer) for pair in pairs]


@pytest.mark.slow
def test_ends_are_places_in_the_text(model: Path) -> None:
    for question, answer in PAIRS:
        pair = Chat(model).encode(question, answer)
        assert len(pair.question_ends) == len(pair.prompt)
        assert len(pair.answer_ends) == len(pair.answer)
        assert pair.question_ends[-1] == len(question)
        assert pair.answer_ends[-1] == len(answer)
        assert pair.question_ends == sorted(pair.question_ends)


@pytest.mark.parametrize(
    ("prompt", "answer", "cutoff", "expected"),
    [
        (10, 10, 100, (10, 10)),
        (50, 49, 100, (50, 49)),
        (50, 50, 100, (50, 49)),
        (10, 500, 101, (10, 90)),
        (500, 10, 101, (90, 10)),
        (300, 300, 101, (50, 50)),
    ],
)
def test_where_training_cuts(
    prompt: int, answer: int, cutoff: int, expected: tuple[int, int]
) -> None:
    assert kept(prompt, answer, cutoff) == expected


def test_what_is_no_tokenizer_is_said(tmp_path: Path) -> None:
    (tmp_path / chat.TOKENIZER).write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is no tokenizer"):
        Chat(tmp_path)
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / chat.TOKENIZER))
    with pytest.raises(CheckpointError, match="not ChatGLM3's"):
        Chat(tmp_path)


def test_the_command_that_gets_a_tokenizer() -> None:
    assert chat.how_to_get("models/chatglm3-6b").endswith("run: make model")
    assert chat.how_to_get("models/tiny").endswith("run: make demo")
    assert "import_model.py ORIGINAL models/x" in chat.how_to_get("models/x")
