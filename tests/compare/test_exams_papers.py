"""Files in the layouts of the published sets, whole and damaged."""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqa.compare.exams_papers import Paper, read_paper
from medqa.compare.exams_plan import LAYOUTS, Exam, ExamTask
from medqa.config import load
from medqa.errors import DataError, MissingInputError

CMMLU = ["", "Question", "A", "B", "C", "D", "Answer"]
CEVAL = ["id", "question", "A", "B", "C", "D", "answer", "explanation"]
CMEXAM = ["Question", "Options", "Answer", "Explanation", "Medical Discipline"]
SAMPLE = {
    "cmmlu": "data/sample/exams/cmmlu",
    "ceval": "data/sample/exams/ceval",
    "cmb": "data/sample/exams/cmb/CMB-val-merge.json",
    "cmexam": "data/sample/exams/cmexam/test_with_annotations.csv",
}


@pytest.fixture
def task(root: Path) -> ExamTask:
    return load(root / "configs/exams/open_answer.yaml", [], ExamTask)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    return tmp_path


def table(columns: list[str], *rows: list[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([columns, *rows])
    return out.getvalue().encode()


def read(layout: str, path: Path | str, task: ExamTask, **more: Any) -> Paper:
    exam = Exam.model_validate({"layout": layout, "path": str(path), "task": "t", **more})
    return read_paper(exam, task)


def left_out(paper: Paper) -> dict[str, int]:
    return {reason: left["rows"] for reason, left in paper.left_out.items()}


def test_cmmlu_from_a_folder_and_from_its_zip(project: Path, task: ExamTask) -> None:
    anatomy = table(
        CMMLU,
        ["0", "壁胸膜的分部不包括", "肋胸膜", "肺胸膜", "膈胸膜", "胸膜顶", "B"],
        ["1", "没有答案", "甲", "乙", "丙", "丁", ""],
        ["2", "答案是别的字母", "甲", "乙", "丙", "丁", "E"],
        ["3", "字段太少", "甲", "乙"],
        ["4", "选项太少", "甲", "", "", "", "A"],
        ["5", "？", "甲", "乙", "丙", "丁", "A"],
    )
    files = {"test/anatomy.csv": anatomy, "test/virology.csv": anatomy, "dev/anatomy.csv": b"x"}
    with zipfile.ZipFile(project / "cmmlu.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            file = project / "cmmlu" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    for path in ("cmmlu", "cmmlu.zip"):
        paper = read("cmmlu", path, task, subjects=["anatomy"])
        (question,) = paper.questions
        assert question.id == "test/anatomy.csv:1"
        assert question.subject == "anatomy"
        assert question.letters == ["A", "B", "C", "D"]
        assert question.choices == "A. 肋胸膜\nB. 肺胸膜\nC. 膈胸膜\nD. 胸膜顶"
        assert question.answer == "B"
        assert paper.read == 6
        assert left_out(paper) == {
            "no_answer": 1,
            "bad_answer": 1,
            "broken_row": 1,
            "bad_options": 1,
            "no_question": 1,
        }
        assert paper.left_out["bad_answer"]["first"] == "test/anatomy.csv:3"
        assert len(read("cmmlu", path, task).questions) == 2
    assert read("cmmlu", "cmmlu", task, subjects=["anatomy"]).files == [
        project / "cmmlu/test/anatomy.csv"
    ]


def test_ceval(project: Path, task: ExamTask) -> None:
    (project / "val").mkdir()
    (project / "val/physician_val.csv").write_bytes(
        b"\xef\xbb\xbf" + table(CEVAL, ["0", "问", "甲", "乙", "丙", "丁", "C", ""])
    )
    (question,) = read("ceval", ".", task).questions
    assert (question.subject, question.answer, question.kind) == ("physician", "C", "单项选择题")


def cmb(**more: Any) -> dict[str, Any]:
    return {
        "exam_type": "医师考试",
        "exam_class": "执业医师",
        "exam_subject": "口腔执业医师",
        "question": "此男孩可能患",
        "answer": "D",
        "question_type": "单项选择题",
        "option": {"A": "甲", "B": "乙", "C": "丙", "D": "丁", "E": "", "F": None},
    } | more


def test_cmb(project: Path, task: ExamTask) -> None:
    rows = [
        cmb(),
        cmb(question_type="多项选择题", answer="ABD"),
        cmb(question_type="多项选择题", answer="d、a"),
        cmb(question_type="多项选择题", answer="Ｄ，Ａ"),
        cmb(answer="E"),  # a blank option
        cmb(answer=None),
        cmb(option=["甲", "乙"]),
        "x",
        cmb(exam_class="其他"),
    ]
    (project / "val.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    paper = read("cmb", "val.json", task, subjects=["执业医师"])
    assert [q.answer for q in paper.questions] == ["D", "ABD", "AD"]
    first = paper.questions[0]
    assert first.exam == "医师考试中执业医师"
    assert first.letters == ["A", "B", "C", "D"]
    assert left_out(paper) == {"bad_answer": 2, "no_answer": 1, "broken_row": 2}
    assert paper.read == 8, "a row that is no object may be of any subject"


def test_the_answers_of_cmb_test_lie_in_a_file_of_their_own(project: Path, task: ExamTask) -> None:
    rows = [{k: v for k, v in cmb(id=n).items() if k != "answer"} for n in (1, 2)]
    (project / "test.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    with pytest.raises(DataError, match=r"2 no_answer.*CMB-test-choice-answer\.json"):
        read("cmb", "test.json", task)
    answers = json.dumps([{"id": 2, "answer": "C"}, {"id": 1, "answer": "AB"}])
    (project / "CMB-test-choice-answer.json").write_text(answers, "utf-8")
    paper = read("cmb", "test.json", task)
    assert [q.answer for q in paper.questions] == ["AB", "C"]
    assert len(paper.files) == 2


def test_cmexam_as_published_and_as_mirrored(project: Path, task: ExamTask) -> None:
    options = "A 甲\nB 乙\nC 丙的\n第二行\nD. 丁\nE 戊"
    (project / "a.csv").write_bytes(
        table(
            CMEXAM,
            ["问", options, "ABE", "解析", "临床医学"],
            ["问", options, "", "解析", ""],
            ["问", "甲乙丙丁", "A", "解析", ""],
        )
    )
    mirrored = {
        "Question": "问",
        "Options": [{"key": letter, "value": letter * 2} for letter in "ABCDE"],
        "Answer": "A",
    }
    lines = [json.dumps(mirrored), '{"Question": ', json.dumps(mirrored | {"Options": 3})]
    (project / "a.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (project / "a.json").write_text(json.dumps([mirrored]), "utf-8")
    paper = read("cmexam", "a.csv", task)
    (question,) = paper.questions
    assert (question.answer, question.subject, question.kind) == ("ABE", "临床医学", "")
    assert question.options[2:4] == ["丙的 第二行", "丁"]
    assert left_out(paper) == {"no_answer": 1, "bad_options": 1}
    paper = read("cmexam", "a.jsonl", task)
    assert paper.questions[0].options == ["AA", "BB", "CC", "DD", "EE"]
    assert left_out(paper) == {"broken_row": 2}
    assert read("cmexam", "a.json", task).read == 1


def test_several_answers_need_a_written_task(project: Path, root: Path) -> None:
    (project / "val.json").write_text(json.dumps([cmb(), cmb(answer="AB")]), "utf-8")
    likeliest = load(root / "configs/exams/cmmlu.yaml", [], ExamTask)
    paper = read("cmb", "val.json", likeliest)
    assert len(paper.questions) == 1
    assert left_out(paper) == {"several_answers": 1}


def test_a_sample_is_seeded_and_the_rest_is_counted(project: Path, task: ExamTask) -> None:
    rows = [cmb(question=f"第{n}题问什么") for n in range(50)]
    (project / "val.json").write_text(json.dumps(rows), "utf-8")
    paper = read("cmb", "val.json", task, max_rows=20)
    ids = [question.id for question in paper.questions]
    assert ids == [question.id for question in read("cmb", "val.json", task, max_rows=20).questions]
    assert len(ids) == 20
    assert ids != [question.id for question in read("cmb", "val.json", task).questions][:20]
    assert left_out(paper) == {"not_sampled": 30}


@pytest.mark.parametrize(
    ("layout", "name", "content", "message"),
    [
        ("cmmlu", "x.zip", b"PK\x03\x04 cut off", "is no whole zip"),
        ("cmmlu", "test/a.csv", table(["id", "question"], ["0", "q"]), "expected the columns"),
        ("cmmlu", "test/a.csv", b"", "expected the columns .* found none"),
        ("cmmlu", "test/a.csv", "题".encode("gbk"), "not UTF-8"),
        ("cmmlu", "b/a.csv", b"x", r"holds no file like .*test"),
        ("cmmlu", "test/a.csv", table(CMMLU), r"no question that can be asked \(it is empty\)"),
        ("cmb", "x.json", b'[{"question": ', "is no JSON array"),
        ("cmb", "x.json", b"", "no question that can be asked"),
        ("cmexam", "x.csv", table(["Question"], ["q"]), "expected the columns Question, Options"),
    ],
)
def test_files_that_are_something_else(
    project: Path, task: ExamTask, layout: str, name: str, content: bytes, message: str
) -> None:
    file = project / "set" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    path = "set" if layout == "cmmlu" and file.suffix == ".csv" else f"set/{name}"
    with pytest.raises(DataError, match=message):
        read(layout, path, task)


def test_subjects_and_files_that_are_not_there(project: Path, task: ExamTask, root: Path) -> None:
    folder = root / SAMPLE["cmmlu"]
    with pytest.raises(DataError, match="no subject 'anatomi'; did you mean 'anatomy'"):
        read("cmmlu", folder, task, subjects=["anatomi"])
    with pytest.raises(DataError, match="no subject '执业'"):
        read("cmb", root / SAMPLE["cmb"], task, subjects=["执业"])
    with pytest.raises(MissingInputError, match="name the published files in 'path'"):
        read("cmb", "nowhere.json", task)
    with pytest.raises(MissingInputError, match=r"run: python scripts/download\.py exams cmb$"):
        read("cmb", "data/raw/exams/cmb/x.json", task)
    there = project / "data/raw/exams/cmexam/test.json"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"[]")
    with pytest.raises(MissingInputError, match=r"found data/raw/exams/cmexam/test\.json: name"):
        read("cmexam", "data/raw/exams/cmexam/test_with_annotations.csv", task)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_sample_has_enough_of_every_set(root: Path, task: ExamTask, layout: str) -> None:
    paper = read(layout, root / SAMPLE[layout], task)
    assert 20 <= len(paper.questions) <= 45
    assert left_out(paper) == ({"no_answer": 1} if layout == "cmexam" else {})
    several = sum(len(question.answer) > 1 for question in paper.questions)
    assert (several > 1) == (layout in ("cmb", "cmexam"))


def test_the_sample_agrees_with_the_facts(root: Path, task: ExamTask) -> None:
    """A right option about a drug says what data/sample/facts.yaml says of it, others do not."""
    facts = yaml.safe_load((root / "data/sample/facts.yaml").read_text("utf-8"))
    drugs = {drug.pop("x"): " ".join(drug.values()) for drug in facts["drugs"]}
    asked = 0
    for layout in LAYOUTS:
        for question in read(layout, root / SAMPLE[layout], task).questions:
            drug = next((name for name in drugs if name in question.question), None)
            if drug is None:
                continue
            asked += 1
            for letter, option in zip(question.letters, question.options, strict=True):
                said = option.split("属于")[-1].split("主要用于")[-1].split("的禁忌：")[-1]
                assert (said.rstrip("。") in drugs[drug]) == (letter in question.answer), option
    assert asked > 70
