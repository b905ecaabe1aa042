"""The one spelling, on real text too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medqa.compare import spelling
from medqa.compare.spelling import Names, Piece, fold


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Ｖｉａｇｒａ　１０ＭＧ", "viagra10mg"),
        ("不能。", "不能。"),
        ("（慎用），？！：", "(慎用),?!:"),
        ("**不能** “喝 酒”", "不能喝酒"),
        ("西地那非與酒精併用會導致低血壓", "西地那非与酒精并用会导致低血压"),
        ("3,000毫克", "3000毫克"),
        ("110,120", "110,120"),
        ("110,120是", "110,120是"),
        ("①②", "12"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_fold(text: str, folded: str) -> None:
    assert fold(text).text == folded
    assert fold(fold(text).text).text == folded


def test_places() -> None:
    found = fold(" a\n … b")
    assert found.text == "a...b"
    assert found.before == [" ", "\n", "", "", " "]
    assert found.origin == [1, 4, 4, 4, 6]


def test_a_converter_that_changes_lengths_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer:
        def convert(self, text: str) -> str:
            return text + "。"

    monkeypatch.setattr(spelling, "_converter", Longer)
    assert fold("低血壓").text == "低血壓"


def test_real_text_keeps_its_places(shared: Path) -> None:
    file = shared / "huatuo" / "huatuo26M-testdatasets.part1.jsonl"
    with file.open("rb") as rows:
        answers = [json.loads(line)["answers"] for line in rows][:500]
    for answer in answers:
        found = fold(answer)
        assert len(found.text) == len(found.before) == len(found.origin)
        assert found.origin == sorted(found.origin)
        assert "".join(answer[n] for n in dict.fromkeys(found.origin)) == "".join(
            character for character in answer if fold(character).text
        )


def test_names() -> None:
    names = Names.of({"西地那非": ["偉哥", "Viagra"], "氧氟沙星": [], "左氧氟沙星": ["可乐必妥"]})
    assert names.heads["伟哥"] == names.heads["viagra"] == "西地那非"
    assert names.pieces(fold("可以吃伟哥")) == (Piece("可以吃"), Piece("西地那非", is_name=True))
    assert names.pieces(fold("viagras")) == (Piece("viagras"),)
    assert names.pieces(fold("可乐必妥")) == (Piece("左氧氟沙星", is_name=True),)
    places = names.places(fold("左氧氟沙星、氧氟沙星和 VIAGRA"))
    assert places == {"左氧氟沙星": [(0, 5)], "氧氟沙星": [(6, 10)], "西地那非": [(11, 17)]}
    assert Names.of({}).places(fold("西地那非")) == {}


def test_importing_loads_no_converter() -> None:
    code = "import medqa.compare.probes, sys; print('opencc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
