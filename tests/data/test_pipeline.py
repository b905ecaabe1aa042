import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medqa.data import registry
from medqa.data.normal import normalise
from medqa.errors import DataError, MissingInputError, TargetError

from .conftest import Project


def asked(n: int) -> str:
    """Returns the nth question; no two are alike."""
    return "".join(chr(c) for c in random.Random(n).choices(range(0x4E00, 0x9FA0), k=9)) + "？"


ROWS = [{"questions": asked(n), "answers": f"第{n}个回答。"} for n in range(50)]


def huatuo(shared: Path, project: Project) -> list[str]:
    """Copies the real rows into the project; returns their names."""
    folder = shared / "huatuo"
    files = [folder / "huatuo26M-testdatasets.part1.jsonl", *(folder / "samples").glob("*.jsonl")]
    for file in files:
        shutil.copyfile(file, project.raw / file.name)
    assert len(files) == 5
    return [file.name for file in files]


def check_sums(project: Project, name: str = "demo") -> None:
    """Adds up from the files alone: each raw line and each pair is in exactly one of them."""
    splits = ["train", "test"]
    if (project.processed / name / "val.jsonl").exists():
        splits.append("val")
    parts = {part: project.read(part, name) for part in (*splits, "rejects")}
    ids = [row["id"] for part in parts.values() for row in part]
    assert len(ids) == len(set(ids))
    manifest = project.manifest(name)
    for key, part in parts.items():
        assert manifest["counts"][key] == len(part)
    assert manifest["counts"]["pairs"] == len(ids)
    for path in manifest["inputs"]:
        lines = (project.root / path).read_bytes().split(b"\n")
        expected = {n for n, line in enumerate(lines, start=1) if line.strip()}
        tag = Path(path).name.split(".")[0]
        if tag not in manifest["sources"]:  # an evaluation file: nothing of it comes in
            continue
        assert expected == {
            int(i.rpartition(":")[2].partition("#")[0]) for i in ids if i.startswith(f"{tag}:")
        }
        assert manifest["sources"][tag]["rows"] == len(expected)
    for key in (
        lambda row: normalise(row.get("instruction") or row["text"]),
        lambda row: row["cluster"],
    ):
        seen = [{key(row) for row in parts[part]} for part in splits]
        assert sum(map(len, seen)) == len(set().union(*seen))


def test_what_is_written(project: Project) -> None:
    project.lines("lite.jsonl", [{"question": "感冒吃什么？", "answer": "多喝水", "label": "内科"}])
    project.lines("a.jsonl", ROWS)
    text = project.convert("lite.jsonl", "a.jsonl")
    check_sums(project)
    rows = project.read("train") + project.read("test")
    assert len(project.read("test")) == 5
    assert {type(value) for row in rows for value in row.values()} == {str}
    (lite,) = [row for row in rows if row["source"] == "lite"]
    assert re.fullmatch("[0-9a-f]{16}", lite.pop("cluster"))
    assert lite == {
        "instruction": "感冒吃什么？",
        "input": "",
        "output": "多喝水",
        "id": "lite:1",
        "source": "lite",
        "department": "内科",
    }
    manifest = project.manifest()
    assert (manifest["step"], manifest["seed"]) == ("convert", 42)
    assert set(manifest["inputs"]) == {"data/raw/lite.jsonl", "data/raw/a.jsonl"}
    assert re.search(r"^total +51 +51 +46 +5 +0$", text, re.MULTILINE)
    assert set(registry.read()) == {"demo_train", "demo_test"}
    assert registry.read()["demo_test"]["file_name"] == "processed/demo/test.jsonl"


def test_up_to_date_then_other_inputs(project: Project) -> None:
    project.lines("a.jsonl", ROWS)
    project.convert("a.jsonl")
    before = (project.processed / "demo" / "train.jsonl").stat().st_mtime_ns
    assert project.convert("a.jsonl") == "up to date: data/processed/demo"
    assert (project.processed / "demo" / "train.jsonl").stat().st_mtime_ns == before
    with pytest.raises(TargetError, match="add --overwrite"):
        project.convert("a.jsonl", seed=1)
    project.lines("a.jsonl", ROWS[1:])
    with pytest.raises(TargetError, match="add --overwrite"):
        project.convert("a.jsonl")
    assert project.manifest()["counts"]["pairs"] == 50
    project.convert("a.jsonl", overwrite=True)
    assert project.manifest()["counts"]["pairs"] == 49


def test_a_lost_entry_is_restored(project: Project) -> None:
    project.lines("a.jsonl", ROWS)
    project.convert("a.jsonl")
    project.info.write_text('{"other": {"file_name": "o.json"}}', encoding="utf-8")
    assert "entered in data/dataset_info.json again" in project.convert("a.jsonl")
    assert set(registry.read()) == {"other", "demo_train", "demo_test"}


@pytest.mark.parametrize("part", ["train", "test", "rejects", "manifest"])
def test_a_result_that_is_not_whole_is_not_trusted(project: Project, part: str) -> None:
    project.lines("a.jsonl", [*ROWS, b"broken"])
    project.convert("a.jsonl")
    (file,) = (project.processed / "demo").glob(f"{part}.json*")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(TargetError):
        project.convert("a.jsonl")


def test_broken_registry_stops_before_any_work(project: Project) -> None:
    project.lines("a.jsonl", ROWS)
    project.info.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="dataset_info"):
        project.convert("a.jsonl")
    assert not project.processed.exists()
    assert project.info.read_text(encoding="utf-8") == "{"


def test_exact_duplicates_go_and_similar_rows_stay(project: Project) -> None:
    project.lines(
        "a.jsonl",
        [
            {"questions": "高血压吃什么药？", "answers": "遵医嘱。"},
            {"questions": "低血压吃什么药？", "answers": "遵医嘱。"},
            {"questions": " 高血压吃什么药", "answers": "遵 医 嘱"},
            {"questions": "高血压吃什么药？", "answers": "每次1.5片。"},
            {"questions": "高血压吃什么药？", "answers": "每次15片。"},
        ],
    )
    project.convert("a.jsonl", test_share=0.5)
    check_sums(project)
    assert [(r["id"], r["reason"]) for r in project.read("rejects")] == [("a:3", "duplicate")]


def test_split_and_order_do_not_depend_on_the_order_of_the_rows(project: Project) -> None:
    rows = [
        {"questions": [[asked(n % 60), asked(n % 90 + 1000)]], "answers": f"回答{n}"}
        for n in range(200)
    ]
    results = []
    for name in ("one", "two"):
        project.lines(f"{name}.jsonl", rows)
        project.convert(f"{name}.jsonl", name=name)
        check_sums(project, name)
        keys = ("instruction", "output", "cluster")
        results.append(
            [[tuple(r[k] for k in keys) for r in project.read(p, name)] for p in ("train", "test")]
        )
        random.Random(1).shuffle(rows)
    assert results[0] == results[1]
    assert results[0][1]


def test_a_duplicate_ties_its_paraphrases_to_the_original(project: Project) -> None:
    """A:B in one row, and B again in another with C: A, B and C stay together."""
    for seed in range(8):
        project.lines(
            "a.jsonl",
            [
                {"questions": [["甲是什么病", "乙怎样才算好"]], "answers": "回答"},
                {"questions": [["丙的后果", "乙怎样才算好"]], "answers": "回答"},
                *ROWS[:4],
            ],
        )
        project.convert("a.jsonl", seed=seed, test_share=0.4, overwrite=True)
        rows = project.read("train") + project.read("test")
        assert len({r["cluster"] for r in rows if r["output"] == "回答"}) == 1
        check_sums(project)


def test_a_bigger_sample_contains_the_smaller(project: Project) -> None:
    project.lines("a.jsonl", ROWS)
    samples = {}
    for count in (10, 20, 45, 100):
        project.convert("a.jsonl", max_rows=count, name=f"n{count}")
        check_sums(project, f"n{count}")
        samples[count] = project.read("train", f"n{count}")
        reasons = Counter(row["reason"] for row in project.read("rejects", f"n{count}"))
        assert reasons == Counter({"not_sampled": 45 - count} if count < 45 else {})
    assert [len(rows) for rows in samples.values()] == [10, 20, 45, 45]
    assert samples[45][:20] == samples[20] and samples[20][:10] == samples[10]
    assert project.read("test", "n10") == project.read("test", "n100")
    assert samples[10] != sorted(samples[10], key=lambda row: int(row["id"][2:]))


def test_replay_joins_training_only_and_meets_its_share(project: Project) -> None:
    project.lines("a.jsonl", ROWS)
    project.convert("a.jsonl", name="alone")
    held_out = project.read("test", "alone")[0]["instruction"]
    general = [{"Q": asked(n), "A": f"在城市{n}。"} for n in range(100, 140)]
    general += [{"Q": held_out.strip("？"), "A": "另一个回答"}, {"Q": asked(1), "A": "第1个回答"}]
    project.lines("general.jsonl", general)
    source = project.source("general.jsonl", columns={"question": "Q", "answer": "A"})
    project.convert("a.jsonl", replay={"share": 0.25, "sources": [source]})
    check_sums(project)
    train = project.read("train")
    mixed = [row for row in train if row["source"] == "general"]
    assert (len(mixed), len(train)) == (15, 60)
    assert project.manifest()["replay"] == {"share_asked": 0.25, "share": 0.25, "rows": 15}
    assert project.read("test") == project.read("test", "alone")
    reasons = {row["id"]: row["reason"] for row in project.read("rejects")}
    assert reasons["general:41"] == "in_test"
    assert reasons["general:42"] == "duplicate"
    assert Counter(reasons.values())["not_sampled"] == 25
    # Mixed through the file, not appended: whoever takes the first rows gets some of it.
    assert any(row["source"] == "general" for row in train[:30])


def test_too_little_general_data_is_said(project: Project) -> None:
    project.lines("a.jsonl", ROWS)
    project.lines("general.jsonl", [{"question": "首都在哪？", "answer": "在北京。"}])
    replay = {"share": 0.5, "sources": [project.source("general.jsonl")]}
    text = project.convert("a.jsonl", replay=replay)
    assert "WARNING: replay is 2.2% of training, not the 50.0% asked for" in text


def test_links_for_answers_are_refused_loudly(project: Project) -> None:
    links = [{"questions": [r["questions"]], "answers": ["https://a.cn/1.html"]} for r in ROWS]
    project.lines("links.jsonl", links)
    project.lines("a.jsonl", ROWS)
    text = project.convert("a.jsonl", "links.jsonl")
    assert text.startswith("WARNING: 50 of 50 pairs of 'links' are left out (url_answer")
    assert not any("http" in row["output"] for row in project.read("train"))
    with pytest.raises(DataError, match="no training pair is left; links: 50 rows, url_answer 50"):
        project.convert("links.jsonl", name="links")
    assert not (project.processed / "links").exists()
    assert "links_train" not in registry.read()


def test_one_question_gives_no_test_and_no_entry(project: Project) -> None:
    rows = [{"questions": "同一个问题", "answers": f"回答{n}"} for n in range(5)]
    project.lines("a.jsonl", rows)
    assert "WARNING: the test split is empty" in project.convert("a.jsonl")
    assert set(registry.read()) == {"demo_train"}
    check_sums(project)


def test_absent_files_are_named_before_any_work(project: Project) -> None:
    with pytest.raises(MissingInputError, match=r"data/raw/b\.jsonl; run: make data"):
        project.convert("b.jsonl")
    assert not project.processed.exists()


CORRUPTIONS = st.sampled_from(["cut", "flip", "delete", "double", "number", "nul", "list", "join"])


def corrupt(line: bytes, how: str, at: float) -> bytes:
    place = int(at * (len(line) - 1))
    value = json.loads(line)
    match how:
        case "cut":
            return line[:place]
        case "flip":
            return line[:place] + bytes([line[place] ^ 0x80]) + line[place + 1 :]
        case "delete":
            return line[:place] + line[place + 1 :]
        case "double":
            return line + line
        case "number":
            return json.dumps({key: 5 for key in value}).encode()
        case "nul":
            return line[:place] + b"\0" + line[place:]
        case "list":
            return json.dumps([value]).encode()
        case _:
            return line[:place] + b"\n" + line[place:]


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.tuples(st.integers(0, 29), CORRUPTIONS, st.floats(0, 1)), max_size=30),
    st.integers(0, 3),
)
def test_nothing_is_lost_whatever_breaks(
    project: Project, damage: list[tuple[int, str, float]], seed: int
) -> None:
    rows: list[dict[str, Any]] = [
        {"questions": [[asked(n % 20), asked(n % 13 + 50)]], "answers": [f"每次{n % 25}片"]}
        for n in range(30)
    ]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    for number, how, at in {number: (number, how, at) for number, how, at in damage}.values():
        lines[number] = corrupt(lines[number], how, at)
    project.lines("a.jsonl", [*lines, *ROWS[:10]])
    project.convert("a.jsonl", seed=seed, overwrite=True)
    check_sums(project)


def test_real_rows(project: Project, shared: Path) -> None:
    names = huatuo(shared, project)
    text = project.convert(*names, max_question_chars=1000, max_answer_chars=8000)
    check_sums(project)
    sources = project.manifest()["sources"]
    assert sources["huatuo_consultation_qa"]["reasons"] == {"url_answer": 5}
    assert "pairs of 'huatuo_consultation_qa' are left out (url_answer" in text
    assert sources["huatuo26M-testdatasets"]["rows"] == 3000
    reasons = sources["huatuo26M-testdatasets"]["reasons"]
    # Read one by one: 52 answers end in a comma or colon, 18 advertise, 2 are about animals, and
    # 2 questions are empty forms.
    assert reasons.keys() == {"truncated_answer", "advertisement", "off_topic", "empty_form"}
    assert sum(reasons.values()) < 100
    for name in ("huatuo_encyclopedia_qa", "huatuo_knowledge_graph_qa", "Huatuo26M-Lite"):
        assert sources[name]["train"] + sources[name]["test"] == 5
    counts = project.manifest()["counts"]
    assert abs(counts["test"] - 0.1 * (counts["train"] + counts["test"])) <= 0.5


def test_real_consultation_rows_alone_are_refused(project: Project, shared: Path) -> None:
    huatuo(shared, project)
    with pytest.raises(DataError, match="5 rows, url_answer 5"):
        project.convert("huatuo_consultation_qa.jsonl")


def script(root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "scripts/convert.py", *arguments],
        cwd=root,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_script_speaks_in_one_line_and_exit_codes(project: Project, root: Path) -> None:
    project.lines("a.jsonl", ROWS)
    config = str(project.config("a.jsonl"))
    for arguments, code, part in [
        ([config, "sead=1", "test_shre=0.2"], 2, "'test_shre'; did you mean 'test_share'?"),
        (["configs/data/absent.yaml"], 2, "configs/data/absent.yaml does not exist"),
        ([config, "--overwrite", "max_rows=3"], 0, ""),
        ([config, "max_rows=3"], 0, ""),
        ([config], 2, "add --overwrite"),
    ]:
        process = script(root, *arguments)
        out, errors = process.communicate()
        assert process.returncode == code, errors
        assert part in errors and "Traceback" not in errors
        assert errors.count("\n") == 1 or not code
        assert code or "data/processed/demo" in out


def snapshot(project: Project) -> dict[str, bytes]:
    folder = project.processed / "demo"
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}
    manifest = {k: v for k, v in project.manifest().items() if k != "finished"}
    return {
        **files,
        "manifest": json.dumps(manifest).encode(),
        "registry": project.info.read_bytes(),
    }


@pytest.mark.slow
def test_twenty_kills_then_the_same_bytes(project: Project, root: Path) -> None:
    """Each kill is followed by a restart; a run that ends is compared and begun again."""
    rows = [{"questions": asked(n % 3000), "answers": f"每次{n}片。" * 20} for n in range(6000)]
    project.lines("a.jsonl", [*rows, *([b"broken"] * 50)])
    config = str(project.config("a.jsonl", workers=2))
    program = (
        "import sys\n"
        "from medqa.data import pipeline, shards\n"
        "shards.SHARD_BYTES = 100_000\n"
        "if __name__ == '__main__':\n"
        "    pipeline.convert(sys.argv[1])\n"
    )
    file = project.root / "program.py"
    file.write_text(program, encoding="utf-8")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(file), config],
            cwd=root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    began = time.monotonic()
    first = start()
    _, errors = first.communicate()
    seconds = time.monotonic() - began
    assert first.returncode == 0, errors.decode()
    expected = snapshot(project)
    assert len(project.read("train")) == 5400

    def forget() -> None:
        shutil.rmtree(project.processed)
        project.info.unlink(missing_ok=True)

    forget()
    moments = random.Random(20)
    kills = ended = 0
    while kills < 20:
        process = start()
        try:
            _, errors = process.communicate(timeout=moments.uniform(0.05, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            kills += 1
            # The parent alone, or its workers with it.
            (os.kill if kills % 2 else os.killpg)(process.pid, signal.SIGKILL)
            process.communicate()
            continue
        assert process.returncode == 0, errors
        ended += 1
        assert snapshot(project) == expected
        forget()
    assert start().communicate()[1] is not None
    assert snapshot(project) == expected
    assert not [f.name for f in project.processed.iterdir() if f.name != "demo"]


@pytest.mark.slow
def test_llamafactory_reads_every_row(project: Project, shared: Path) -> None:
    """Its own loader, in a process of its own since importing it warns."""
    project.convert(*huatuo(shared, project), max_answer_chars=8000)
    code = (
        "import json, sys\n"
        "from llamafactory.data.loader import _get_merged_dataset\n"
        "from llamafactory.hparams import DataArguments, ModelArguments\n"
        "from transformers import Seq2SeqTrainingArguments\n"
        "names = ['demo_train', 'demo_test']\n"
        "data = DataArguments(dataset=','.join(names), dataset_dir=sys.argv[1])\n"
        "model = ModelArguments(model_name_or_path='none')\n"
        "training = Seq2SeqTrainingArguments(output_dir=sys.argv[2], use_cpu=True)\n"
        "read = _get_merged_dataset(names, model, data, training, 'sft', return_dict=True)\n"
        "for name in names:\n"
        "    rows = [(r['_prompt'][0]['content'], r['_response'][0]['content'])\n"
        "            for r in read[name]]\n"
        "    print('ROWS', json.dumps(rows))\n"
    )
    cache = project.root / "cache"
    done = subprocess.run(
        [sys.executable, "-c", code, str(project.info.parent), str(project.root / "out")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read = [json.loads(line[5:]) for line in done.stdout.split("\n") if line.startswith("ROWS ")]
    for part, rows in zip(("train", "test"), read, strict=True):
        written = [[row["instruction"], row["output"]] for row in project.read(part)]
        assert rows == written and written
