"""The packing bench runs on any rows of the two forms, and says what it cannot read."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medqa.model.importer import import_model


def run(root: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, root / "scripts/bench/packing.py", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def test_wrong_input_is_named(root: Path, tmp_path: Path) -> None:
    absent = run(root, tmp_path / "none.jsonl")
    assert (absent.returncode, absent.stdout) == (2, "")
    assert "none.jsonl does not exist; name another" in absent.stderr
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": ["高血压"], "answers": "是"}\n', encoding="utf-8")
    absent = run(root, rows, "--tokenizer", tmp_path / "models")
    assert "models does not exist; run: make model" in absent.stderr
    pieces = root / "tests/fixtures/golden/tokenizer.model"
    wrong = run(root, rows, "--tokenizer", pieces)
    assert wrong.returncode == 2
    assert "found the keys question, answers" in wrong.stderr


@pytest.mark.slow
def test_all_ways_train_on_the_same_rows(root: Path, tmp_path: Path) -> None:
    import_model(root / "tests/fixtures/golden", tmp_path / "m", dtype="float32", origin="golden")
    chance, rows = random.Random(0), tmp_path / "rows.jsonl"
    with rows.open("w", encoding="utf-8") as out:
        for n in range(64):
            said = "a" * (120 if n % 8 == 0 else chance.randint(1, 20))
            row = {"questions": "q", "answers": said}
            out.write(json.dumps(row) + "\n")
    done = run(root, rows, "--tokenizer", tmp_path / "m", "--rows", "16")
    assert done.returncode in (0, 1), done.stderr  # how fast is not for so few rows to say
    cells = [re.split(r" *\| *", line)[1:] for line in done.stdout.splitlines()[2:]]
    assert [line[0] for line in cells] == ["defaults", "padded", "packed"]
    assert [line[1] for line in cells] == ["2", "2", "1"]
    assert len({line[2] for line in cells}) == 1, "real tokens of the same rows"
    assert cells[0][3] == cells[1][3], "padding of the same batches"
