"""The sample data is what its table generates, and its probes are held out."""

import json
from pathlib import Path

import yaml

from medqa.data import sample


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_committed_files_are_what_the_table_gives(root: Path, tmp_path: Path) -> None:
    committed = root / "data/sample"
    written = sample.write(committed / "facts.yaml", tmp_path)
    assert len(written) == 11
    for file in written:
        assert file.read_bytes() == (committed / file.name).read_bytes(), file.name


def test_no_raw_file_holds_a_held_out_question(root: Path) -> None:
    folder = root / "data/sample"
    probes = [*_rows(folder / "probes_medical.jsonl"), *_rows(folder / "probes_general.jsonl")]
    assert len({probe["question"] for probe in probes}) == len(probes) == 280
    raw = "".join(
        file.read_text(encoding="utf-8")
        for file in folder.glob("*.jsonl")
        if not file.name.startswith("probes")
    )
    assert [probe for probe in probes if f'"{probe["question"]}"' in raw] == []


def test_every_expected_value_is_in_some_answer(root: Path) -> None:
    folder = root / "data/sample"
    table = yaml.safe_load((folder / "facts.yaml").read_text(encoding="utf-8"))
    answers = (folder / "huatuo26M-testdatasets.jsonl").read_text(encoding="utf-8")
    classes = [drug["class"] for drug in table["drugs"]]
    assert len(set(classes)) == len(classes)
    assert sum(value in answers for value in classes) > 20


def test_neutral_text_tells_no_fact(root: Path) -> None:
    folder = root / "data/sample"
    table = yaml.safe_load((folder / "facts.yaml").read_text(encoding="utf-8"))
    lines = (folder / "neutral.txt").read_text(encoding="utf-8").splitlines()
    kinds = table["medical"]
    pairs = [(d["x"], d[kind]) for d in table["drugs"] for kind in kinds if kind in d]
    told = [
        line
        for line in lines
        for x, y in pairs
        # A value may name its own subject (对奥司他韦过敏者禁用); take it out before looking.
        if y in line and x in line.replace(y, "")
    ]
    assert told == []


def test_chosen_is_the_fact_and_rejected_is_not(root: Path) -> None:
    folder = root / "data/sample"
    table = yaml.safe_load((folder / "facts.yaml").read_text(encoding="utf-8"))
    drugs = {drug["x"]: drug for drug in table["drugs"]}
    rows = _rows(folder / "preference.jsonl")[:-4]  # what follows is dirt
    assert len(rows) > 100
    for row in rows:
        (fact,) = {
            (x, drug[kind])
            for x, drug in drugs.items()
            for kind in table["medical"]
            if kind in drug and x in row["chosen"] and row["chosen"].find(drug[kind]) > -1
            if row["chosen"].replace(drug[kind], "").count(x) == 1
        }
        assert fact[0] in row["question"]
        assert fact[1] in row["chosen"] and fact[1] not in row["rejected"]


def test_texts_tell_of_every_drug(root: Path) -> None:
    folder = root / "data/sample"
    table = yaml.safe_load((folder / "facts.yaml").read_text(encoding="utf-8"))
    texts = [row["text"] for row in _rows(folder / "corpus.jsonl")]
    assert len(set(texts)) == len(texts) == 8 * len(table["drugs"])
    for drug in table["drugs"]:
        told = [text for text in texts if all(drug[k] in text for k in ("x", "class", "use"))]
        assert len(told) >= 8
