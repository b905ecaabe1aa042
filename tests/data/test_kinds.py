"""Preferences and running text: what becomes of a row, alone and among others, and of a file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.data import formats, kinds, registry, rows, shards
from medqa.data.bulk import convert_all
from medqa.data.chat import Chat, kept
from medqa.data.clean import Cleaner
from medqa.data.kinds import OPENING_CHARS, SCHEMAS
from medqa.data.preview import preview
from medqa.data.rows import Keys, Kind, Limits, Record, Rejection, Row, Settings
from medqa.data.rules import Rules
from medqa.model.importer import import_model

from .conftest import SETTINGS, Project
from .test_pipeline import asked, check_sums

LIMITS: dict[str, Limits] = {"preference": Limits(2, 20, 2, 30), "text": Limits(5, 150, 5, 150)}


ANSWERS = {"chosen": "多喝水。", "rejected": "不用管。"}


def settings(kind: Kind, **changes: Any) -> Settings:
    values = {"limits": LIMITS[kind], "rules": Rules().on, "privacy": True, "seed": 42, **changes}
    return Settings(segment_questions=False, kind=kind, **values)


def convert(
    kind: Kind, value: Any, schemas: tuple[Keys, ...] | None = None, **changes: Any
) -> list[Record | Rejection]:
    given = settings(kind, **changes)
    cleaner = Cleaner(given.rules, given.privacy)
    row = Row("s", 1, value, json.dumps(value).encode())
    return kinds.convert(row, schemas or SCHEMAS[kind], given, cleaner)


def record(kind: Kind, value: Any, **changes: Any) -> Record:
    (found,) = convert(kind, value, **changes)
    assert isinstance(found, Record), found
    return found


def reason(kind: Kind, value: Any, **changes: Any) -> str:
    (found,) = convert(kind, value, **changes)
    assert isinstance(found, Rejection), found
    return found.reason


def better(**changes: Any) -> dict[str, Any]:
    return {"question": "感冒怎么办？", **ANSWERS, **changes}


# --- preferences ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "question"),
    [
        (better(), "感冒怎么办？"),
        (
            {
                "question": ["感冒怎么办？"],
                "response_chosen": ["多喝水。"],
                "response_rejected": "不用管。",
            },
            "感冒怎么办？",
        ),
        (
            {
                "instruction": "感冒怎么办？",
                "input": "",
                "chosen": "多喝水。",
                "rejected": "不用管。",
            },
            "感冒怎么办？",
        ),
        (
            {
                "instruction": "怎么办？",
                "input": "感冒",
                "chosen": "多喝水。",
                "rejected": "不用管。",
            },
            "怎么办？\n感冒",
        ),
        (
            {"instruction": "感冒怎么办？", "chosen": "多喝水。", "rejected": "不用管。"},
            "感冒怎么办？",
        ),
    ],
)
def test_known_layouts(value: Any, question: str) -> None:
    found = record("preference", value)
    assert (found.question, found.answer, found.rejected) == (question, "多喝水。", "不用管。")


def test_own_names() -> None:
    keys = (Keys("问", "好", "科", "坏", "补充"),)
    value = {"问": "感冒", "补充": "三天了", "好": "多喝水。", "坏": "不用管。", "科": "内科"}
    (found,) = convert("preference", value, keys)
    assert isinstance(found, Record)
    assert (found.question, found.department) == ("感冒\n三天了", "内科")


def test_question_and_both_answers_are_mended_and_masked() -> None:
    found = record(
        "preference",
        better(
            question="您好，感冒怎么办？", chosen="病情分析：多喝水", rejected="打13812345678<br/>"
        ),
    )
    assert (found.question, found.answer, found.rejected) == ("感冒怎么办？", "多喝水", "打[电话]")
    changed = {rule for rule, _, _ in found.changes}
    assert {"greetings", "section_labels", "html_tags", "privacy:phone"} <= changed


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"question": "感冒？", "chosen": "多喝水"}, rows.MISSING_KEY),
        ({"question": "感冒？", "response_chosen": "a", "rejected": "b"}, rows.MISSING_KEY),
        ([], rows.WRONG_TYPE),
        (better(rejected=5), rows.WRONG_TYPE),
        (better(chosen=[{"role": "assistant", "content": "多喝水"}] * 2), rows.WRONG_TYPE),
        (better(rejected=""), rows.EMPTY_ANSWER),
        (better(rejected="。"), rows.EMPTY_ANSWER),
        (better(chosen=None), rows.EMPTY_ANSWER),
        (better(question=" "), rows.EMPTY_QUESTION),
        (better(rejected="水"), rows.ANSWER_TOO_SHORT),
        (better(rejected="喝水" * 16), rows.ANSWER_TOO_LONG),
        (better(chosen="喝水" * 16), rows.ANSWER_TOO_LONG),
        (better(question="感冒" * 11), rows.QUESTION_TOO_LONG),
        (better(rejected="您好，多喝水"), rows.EQUAL_ANSWERS),
        (better(rejected="http://a.cn/1"), rows.URL_ANSWER),
        (better(chosen="注意以下几点："), "truncated_answer"),
    ],
)
def test_reasons_against_a_preference(value: Any, expected: str) -> None:
    assert reason("preference", value) == expected


def test_what_is_worse_may_break_off_or_advertise() -> None:
    for text in ("注意以下几点：", "详情请点击在线咨询", "感冒怎么办？"):
        assert record("preference", better(rejected=text)).rejected == text


def test_the_worse_answer_counts_among_what_is_equal() -> None:
    one, same, other = (
        record("preference", better(rejected=text)) for text in ("不用管。", "不用管", "吃药")
    )
    assert one.rejected_key == same.rejected_key != other.rejected_key
    assert one.rank == same.rank != other.rank
    assert one.answer_key == other.answer_key


def test_preferences_of_a_project(project: Project) -> None:
    values = [
        better(question=asked(n), chosen=f"第{n}个好的回答", rejected=f"第{n}个差的回答")
        for n in range(60)
    ]
    others = [dict(values[0]), {**values[0], "rejected": "又一个差的"}, better(rejected="多喝水")]
    project.lines("a.jsonl", [*values, *others])
    project.convert("a.jsonl", kind="preference", val_share=0.1)
    check_sums(project)
    assert project.manifest()["counts"]["reasons"] == {"duplicate": 1, "equal_answers": 1}
    parts = {part: project.read(part) for part in ("train", "test", "val")}
    assert [len(found) for found in parts.values()] == [49, 6, 6]
    names = ["instruction", "input", "chosen", "rejected", "id", "source", "department", "cluster"]
    for row in [row for found in parts.values() for row in found]:
        assert list(row) == names and all(isinstance(value, str) for value in row.values())
        number = row["chosen"].removeprefix("第").removesuffix("个好的回答")
        assert row["rejected"] in (f"第{number}个差的回答", "又一个差的")
    # Both rows about the same question are on one side.
    sides = [part for part, found in parts.items() for r in found if r["instruction"] == asked(0)]
    assert len(sides) == 2 and len(set(sides)) == 1
    entry = json.loads(project.info.read_bytes())["demo_val"]
    assert entry == {
        "file_name": "processed/demo/val.jsonl",
        "ranking": True,
        "columns": {
            "prompt": "instruction",
            "query": "input",
            "chosen": "chosen",
            "rejected": "rejected",
        },
    }


def test_a_long_worse_answer_ties_rows(project: Project) -> None:
    values = [
        better(
            question=asked(n), chosen=f"第{n}个好的", rejected=f"第{n // 3}个。" + "不用管它。" * 12
        )
        for n in range(90)
    ]
    project.lines("a.jsonl", values)
    project.convert("a.jsonl", kind="preference", test_share=0.3)
    sides = [{row["rejected"] for row in project.read(part)} for part in ("train", "test")]
    assert sides[1] and not sides[0] & sides[1]


def test_preferences_in_columns(project: Project) -> None:
    table = pl.DataFrame([better(question=asked(n), chosen=f"回答{n}") for n in range(20)])
    table.write_csv(project.raw / "a.csv")
    table.rename({"chosen": "好", "rejected": "坏"}).write_parquet(project.raw / "b.parquet")
    own = {"columns": {"question": "question", "chosen": "好", "rejected": "坏"}}
    project.convert(kind="preference", sources=[project.source("a.csv")])
    first = [(row["instruction"], row["chosen"]) for row in project.read("train")]
    project.convert(kind="preference", sources=[project.source("b.parquet", **own)], overwrite=True)
    assert [(row["instruction"], row["chosen"]) for row in project.read("train")] == first
    with pytest.raises(Exception, match=r"known schema; .*\{question: NAME, chosen: NAME, rej"):
        project.convert(kind="preference", sources=[project.source("b.parquet")], name="other")


# --- text -------------------------------------------------------------------------------------


def test_a_text_is_compared_by_its_opening() -> None:
    text = "感冒是一种常见病。\n" + "多喝水，多休息。" * 16
    found = record("text", {"text": text, "department": "内科"})
    assert (found.answer, found.department) == (text, "内科")
    assert found.question == text[:OPENING_CHARS]
    longer = record("text", {"text": text + "好得快。"})
    assert longer.question_key == found.question_key and longer.answer_key != found.answer_key


def test_a_short_text_is_no_echo_of_itself() -> None:
    assert record("text", {"text": "感冒怎么办？"}).answer == "感冒怎么办？"


def test_a_question_with_its_answer_is_a_text() -> None:
    for value in (
        {"questions": [["您好，感冒怎么办？"]], "answers": ["病情分析：多喝水。"]},
        {"question": "感冒怎么办？", "answer": "多喝水。", "label": "内科"},
    ):
        found = record("text", value)
        assert (found.question, found.answer) == ("感冒怎么办？", "感冒怎么办？\n多喝水。")


def test_paraphrases_do_not_repeat_the_text() -> None:
    value = {"questions": [["感冒怎么办？", "感冒了呢？"], ["发烧呢？"]], "answers": ["多喝水。"]}
    assert record("text", value).answer == "感冒怎么办？\n多喝水。"
    value = {
        "questions": [["感冒怎么办？", "感冒了呢？"], ["发烧呢？"]],
        "answers": ["多喝水。", "休息。"],
    }
    texts = [found.answer for found in convert("text", value) if isinstance(found, Record)]
    assert texts == ["感冒怎么办？\n多喝水。", "发烧呢？\n休息。"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"other": "多喝水。"}, rows.MISSING_KEY),
        ({"question": "感冒？"}, rows.MISSING_KEY),
        ("多喝水。", rows.WRONG_TYPE),
        ({"text": 5}, rows.WRONG_TYPE),
        ({"text": ["a", "b"]}, rows.WRONG_TYPE),
        ({"text": ""}, rows.EMPTY_TEXT),
        ({"text": "。！"}, rows.EMPTY_TEXT),
        ({"question": "感冒？", "answer": ""}, rows.EMPTY_ANSWER),
        ({"question": None, "answer": "多喝水。"}, rows.EMPTY_QUESTION),
        ({"text": "多喝水"}, rows.TEXT_TOO_SHORT),
        ({"text": "多喝水" * 51}, rows.TEXT_TOO_LONG),
        ({"question": "感冒？", "answer": "多喝水" * 50}, rows.TEXT_TOO_LONG),
        ({"question": "感冒" * 100, "answer": "多喝水"}, rows.TEXT_TOO_LONG),
        ({"text": "https://a.cn/1"}, rows.URL_ANSWER),
        ({"text": "可大致分为三个阶段："}, "truncated_answer"),
        ({"text": "详情请点击在线咨询按钮"}, "advertisement"),
        ({"question": "感冒怎么办？", "answer": "感冒怎么办？"}, "echo_answer"),
        ({"text": "模型看到<|user|>就会当真"}, rows.CONTROL_TOKEN),
        ({"question": "什么是[gMASK]？", "answer": "一个记号。"}, rows.CONTROL_TOKEN),
    ],
)
def test_reasons_against_a_text(value: Any, expected: str) -> None:
    assert reason("text", value) == expected


def test_own_name_of_the_text() -> None:
    keys = (Keys(None, "正文"),)
    (found,) = convert("text", {"正文": "感冒要多喝水。"}, keys)
    assert isinstance(found, Record) and found.answer == "感冒要多喝水。"
    (none,) = convert("text", {"text": "感冒要多喝水。"}, keys)
    assert isinstance(none, Rejection) and none.reason == rows.MISSING_KEY


TEXT: dict[str, Any] = {
    "kind": "text",
    "min_text_chars": 5,
    "max_text_chars": 500,
    **dict.fromkeys([key for key in SETTINGS if key.endswith("_chars")]),
}


def test_texts_of_a_project(project: Project) -> None:
    """JSON rows, lines of a .txt file in a folder, and pairs."""
    project.lines("a.jsonl", [{"text": f"{asked(n)}的回答，写给ab@example.com"} for n in range(40)])
    (project.raw / "b").mkdir()
    lines = [f"{asked(n)}一段文字。\r\n" for n in range(100, 130)]
    file = project.raw / "b" / "one.txt"
    file.write_bytes("".join([*lines, "\n", "短\n", lines[0]]).encode() + b"\xd6\xd0\xce\xc4\n")
    project.lines("b/two.jsonl", [{"questions": asked(200), "answers": "一个回答。"}])
    sources = [project.source("a.jsonl"), project.source("b")]
    text = project.convert(**TEXT, sources=sources)
    check_sums(project)
    assert "texts" in text and "pairs" not in text
    counts = project.manifest()["counts"]
    assert (counts["pairs"], counts["train"], counts["test"]) == (74, 64, 7)
    assert counts["reasons"] == {"text_too_short": 1, "not_utf8": 1, "duplicate": 1}
    every = project.read("train") + project.read("test")
    assert all(list(r) == ["text", "id", "source", "department", "cluster"] for r in every)
    found = {row["id"]: row["text"] for row in every}
    assert found["a:1"] == f"{asked(0)}的回答，写给[邮箱]"
    assert found["b:1"] == f"{asked(100)}一段文字。"  # of the .txt, whose lines are numbered
    assert found["b:35"] == f"{asked(200)}\n一个回答。"
    assert {r["id"]: r["reason"] for r in project.read("rejects")} == {
        "b:32": "text_too_short",
        "b:34": "not_utf8",
        "b:33": "duplicate",
    }
    entry = json.loads(project.info.read_bytes())["demo_train"]
    assert entry == {"file_name": "processed/demo/train.jsonl", "columns": {"prompt": "text"}}


def test_pieces_of_any_size_give_the_same_texts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"{asked(n)}一段文字。\n" + "\n" * (n % 3) for n in range(150))
    (project.raw / "a.txt").write_text(text, encoding="utf-8")
    project.convert("a.txt", **TEXT)
    before = [project.read(part) for part in ("train", "test")]
    monkeypatch.setattr(shards, "SHARD_BYTES", 2_000)
    monkeypatch.setattr(formats, "BLOCK_BYTES", 700)
    made = shards.formats.divide
    parts: list[int] = []
    monkeypatch.setattr(
        formats, "divide", lambda *given: (found := made(*given), parts.append(len(found)))[0]
    )
    project.convert("a.txt", **TEXT, overwrite=True, workers=1, seed=43)
    project.convert("a.txt", **TEXT, overwrite=True, workers=1)
    assert [project.read(part) for part in ("train", "test")] == before
    assert min(parts) > 2


def test_replay_and_evaluation_files_of_a_corpus(project: Project) -> None:
    project.lines("a.jsonl", [{"questions": asked(n), "answers": f"回答{n}"} for n in range(60)])
    (project.raw / "b.txt").write_text("".join(f"{asked(n)}。\n" for n in range(100, 160)))
    project.lines("exam.jsonl", [{"题": asked(n), "答": "x"} for n in range(30)])
    project.convert(
        "a.jsonl",
        **TEXT,
        replay={"share": 0.5, "sources": [project.source("b.txt")]},
        decontaminate=[project.source("exam.jsonl", columns={"question": "题", "answer": "答"})],
    )
    check_sums(project)
    train = project.read("train")
    own = [int(row["text"].rpartition("回答")[2]) for row in train if row["source"] == "a"]
    assert own and min(own) >= 30
    assert len(own) == sum(row["source"] == "b" for row in train)
    left = [r for r in project.read("rejects") if r["reason"] == "near_evaluation"]
    assert left and all(row["match"].startswith("exam: ") for row in left)


# --- together ---------------------------------------------------------------------------------

PIECES = """
    高血压 怎么办 多喝水 您好， 病情分析： 祝早日康复 点击在线咨询 电话13812345678 <br> ， 。 ：
    https://a.cn <|user|> ０．５ 王医生 狗狗 不吃 &lt;
"""
STRING = st.lists(st.sampled_from([*PIECES.split(), "\n"]), max_size=6).map("".join)
VALUE = (
    STRING | st.lists(STRING | st.lists(STRING, max_size=2), max_size=2) | st.none() | st.just(5)
)
KEYS = "question chosen rejected response_chosen response_rejected instruction input text answer"
ROW = (
    st.builds(better, question=STRING, chosen=STRING, rejected=STRING)
    | st.builds(lambda t: {"text": t}, STRING)
    | st.dictionaries(st.sampled_from([*KEYS.split(), "questions", "answers"]), VALUE, max_size=5)
    | st.sampled_from([None, [], "x"])
)


@pytest.mark.parametrize("kind", ["preference", "text"])
@given(values=st.lists(ROW, max_size=6))
def test_many_rows_give_what_each_gives(kind: Kind, values: list[Any]) -> None:
    given = settings(kind)
    cleaner = Cleaner(given.rules, given.privacy)
    many = [Row("s", n, value, json.dumps(value).encode()) for n, value in enumerate(values, 1)]
    each = [kinds.convert(row, SCHEMAS[kind], given, cleaner) for row in many]
    assert convert_all(many, SCHEMAS[kind], given, cleaner) == each
    assert all(len({outcome.id for outcome in found}) == len(found) > 0 for found in each)


@pytest.mark.parametrize("kind", ["preference", "text"])
def test_up_to_date_and_resumed_in_the_same_bytes(project: Project, kind: Kind) -> None:
    more = TEXT if kind == "text" else {"kind": kind}
    values = [better(question=asked(n), chosen=f"好{n}", text=f"{asked(n)}好。") for n in range(40)]
    project.lines("a.jsonl", values)
    project.convert("a.jsonl", **more)
    assert project.convert("a.jsonl", **more).startswith("up to date")
    folder = project.processed / "demo"
    before = {file.name: file.read_bytes() for file in folder.glob("*.jsonl")}
    assert len(before) == 3
    project.convert("a.jsonl", **more, workers=2, seed=43, overwrite=True)
    project.convert("a.jsonl", **more, workers=1, overwrite=True)
    assert {file.name: file.read_bytes() for file in folder.glob("*.jsonl")} == before
    assert registry.read()["demo_train"]["columns"] == registry.LAYOUTS[kind]["columns"]


@pytest.mark.parametrize("kind", ["preference", "text"])
def test_report_card_and_preview_speak_of_the_kind(project: Project, kind: Kind) -> None:
    more = TEXT if kind == "text" else {"kind": kind}
    values = [better(question=asked(n), chosen=f"好{n}", text=f"{asked(n)}好。") for n in range(40)]
    project.lines("a.jsonl", values)
    project.convert("a.jsonl", **more)
    folder = project.processed / "demo"
    report = (folder / "report.html").read_text(encoding="utf-8")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "问答对" not in report + card and "question-answer pairs" not in card
    shown = preview("demo", 1)
    row = project.read("train")[0]
    if kind == "text":
        assert "继续预训练" in report and "pairs" not in report.replace("pairs of near", "")
        assert "continued pretraining" in card and "`output`" not in card
        assert f"⟦{row['text']}</s>⟧" in shown and "<|user|>" not in shown
    else:
        assert "较差的答案" in report
        assert "`chosen` and `rejected`" in card and "`output`" not in card
        assert f"chosen ⟦\n {row['chosen']}</s>⟧\nrejected ⟦\n {row['rejected']}</s>⟧" in shown


CUTOFF = 120  # tokens; the small tokenizer makes three of a rare character


@pytest.mark.slow
def test_llamafactory_reads_every_row(project: Project, root: Path) -> None:
    """Its own loader and its own encoding, for the stages dpo and pt."""
    model = project.root / "models" / "tiny"
    import_model(root / "tests/fixtures/golden", model, dtype="keep", origin="test")
    values = [better(question=asked(n), chosen=f"好{n}", text=f"{asked(n)}好。") for n in range(40)]
    values[0]["rejected"] = "不用管它，" * 20  # is cut
    project.lines("a.jsonl", values)
    project.convert("a.jsonl", kind="preference", name="pairwise")
    project.convert("a.jsonl", **TEXT, name="corpus")
    code = (
        "import json, sys\n"
        "from llamafactory.data import get_dataset, get_template_and_fix_tokenizer\n"
        "from llamafactory.hparams import DataArguments, ModelArguments\n"
        "from llamafactory.model import load_tokenizer\n"
        "from transformers import Seq2SeqTrainingArguments\n"
        "stage, name, folder, model, out, cutoff = sys.argv[1:]\n"
        "data = DataArguments(dataset=name, dataset_dir=folder, template='chatglm3',\n"
        "                     cutoff_len=int(cutoff), overwrite_cache=True)\n"
        "models = ModelArguments(model_name_or_path=model,\n"
        "                        split_special_tokens=stage == 'rm')\n"
        "training = Seq2SeqTrainingArguments(output_dir=out, use_cpu=True)\n"
        "module = load_tokenizer(models)\n"
        "template = get_template_and_fix_tokenizer(module['tokenizer'], data)\n"
        "read = get_dataset(template, models, data, training, stage, **module)\n"
        "tokenizer = module['tokenizer']\n"
        "for row in read['train_dataset']:\n"
        "    ids = [[i for i in v if i >= 0] for k, v in row.items() if k.endswith(\n"
        "           'labels' if stage == 'rm' else 'input_ids')]\n"
        "    print('ROW', json.dumps([[tokenizer.decode(i).strip(), len(i)] for i in ids]))\n"
    )
    read = {}
    for stage, name, cutoff in (("rm", "pairwise_train", CUTOFF), ("pt", "corpus_train", 512)):
        arguments = [stage, name, project.info.parent, model, project.root / "out", cutoff]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(project.root / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.split("\n") if line.startswith("ROW ")]
        read[stage] = [json.loads(line[4:]) for line in lines]
    texts = [f"{row['text']}</s>" for row in project.read("train", "corpus")]
    assert [text for ((text, _),) in read["pt"]] == texts and texts
    encoder, cut = Chat(model), 0
    trained = project.read("train", "pairwise")
    for row, pair in zip(trained, read["rm"], strict=True):
        answers = [row["chosen"], row["rejected"]]
        ids = [encoder.encode(row["instruction"], answer) for answer in answers]
        longest = max(len(i.answer) for i in ids)
        _, of_answer = kept(len(ids[0].prompt), longest + 1, CUTOFF + 1)  # as preview has it
        assert [size for _, size in pair] == [min(len(i.answer) + 1, of_answer) for i in ids]
        if longest < of_answer:
            assert [text for text, _ in pair] == [f"{answer}</s>" for answer in answers]
        cut += longest >= of_answer
    assert cut == 1 < len(trained)
