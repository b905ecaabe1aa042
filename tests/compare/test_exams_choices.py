"""What written answers choose; each case is an answer as models write them."""

import pytest

from medqa.compare.exams_choices import chosen

LETTERS = "ABCDE"
OPTIONS = ["青霉素类抗生素", "胃出血", "出血", "DNA聚合酶", "高血压"]

SAID = {
    # Nothing but letters.
    "A": "A",
    "B.": "B",
    "（C）": "C",
    "ＡＢ": "AB",
    "ABD": "ABD",
    "ABCDE": "ABCDE",
    "B（胃出血）": "B",
    "DBA": "ABD",
    "A、B、D": "ABD",
    "A,B,D。": "ABD",
    "A 和 C": "AC",
    "**B**": "B",
    # A letter and its option.
    "B. 胃出血": "B",
    "B．胃出血": "B",
    "B 胃出血": "B",
    "A：青霉素类抗生素": "A",
    "D DNA聚合酶": "D",
    "DDNA聚合酶": "D",
    "A. 青霉素类抗生素\nC. 出血": "AC",
    "A. 青霉素类抗生素 C. 出血": "AC",
    "A、青霉素类抗生素；C、出血。": "AC",
    "B\n解析：A项不对。": "B",
    "B. 胃出血。解析：A. 青霉素类抗生素是药。": "B",
    # A conclusion.
    "答案是B": "B",
    "答案：B": "B",
    "答案:A. 青霉素类抗生素": "A",
    "正确答案为：ABD。": "ABD",
    "【答案】C": "C",
    "答案是**B**": "B",
    "我认为答案应该是 B 。": "B",
    "所以答案是A和C。": "AC",
    "正确选项：B、D": "BD",
    "答案为B选项": "B",
    "故选AC。": "AC",
    "因此选择D。": "D",
    "选：B": "B",
    "错误的是D。": "D",
    "应选择的药物是B": "B",
    "Answer: C": "C",
    "B选项正确": "B",
    "选项C正确，因为……": "C",
    "选项A、B、C均正确": "ABC",
    "A不正确，C正确。": "C",
    "A项错误，故选B。": "B",
    "不选A，应选B": "B",
    "不应选A，而应选B": "B",
    "该题选B，不选C。": "B",
    "A. 青霉素类抗生素\nB. 胃出血\n答案：B": "B",
    "A. 青霉素类抗生素，错误\nB. 胃出血，正确": "B",
    # No letter: the text of options.
    "阿莫西林属于青霉素类抗生素。": "A",
    "会引起胃出血。": "B",
    "会引起出血和高血压。": "CE",
    "会胃出血，也会出血": "BC",
    "并非青霉素类抗生素，而是DNA聚合酶": "D",
}

UNPARSED = [
    "",
    "   ",
    "您好，建议去医院。",
    "以上都对",
    "答案：无",
    "a",
    # A letter that is part of a word.
    "AYS Drugs",
    "A drug that helps",
    "A型血",
    "选A型血的人",
    "ABO血型",
    "CT检查",
    "B超",
    "首选B超检查",
    "B12",
    "D-二聚体",
    "C反应蛋白升高",
    "答案是C反应蛋白",
    "维生素A、维生素D",
    "A 5-羟色胺",
    # A letter that is no option, a choice denied, two choices.
    "答案是F",
    "不能选A。",
    "A选项错误。",
    "选C或D",
    "答案是B。但答案是C。",
    "不是高血压",
    # The question again.
    "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, OPTIONS, strict=True)),
    " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, OPTIONS, strict=True)),
]


@pytest.mark.parametrize(("answer", "letters"), SAID.items())
def test_it_reads_the_choice(answer: str, letters: str) -> None:
    assert chosen(answer, LETTERS, OPTIONS) == letters


@pytest.mark.parametrize("answer", UNPARSED)
def test_it_says_when_it_cannot(answer: str) -> None:
    assert chosen(answer, LETTERS, OPTIONS) is None


def test_a_short_option_is_not_found_by_its_text() -> None:
    assert chosen("这是好的。", "AB", ["是", "否"]) is None
    assert chosen("答案是A", "AB", ["是", "否"]) == "A"


def test_a_long_answer_takes_no_time() -> None:
    assert chosen("A" + " " * 20_000 + "x", LETTERS, OPTIONS) is None
    assert chosen("A、" * 5_000, LETTERS, OPTIONS) == "A"
