"""Masking of personal data.

`privacy.jsonl` beside this file: {"text": …, "spans": [[start, end, type], …]} a line. Every
person, number and address in it is made up (patterned digits; check digits are computed so that
the rules can be tested); none was taken from a data set.
"""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.data.privacy import DESCRIPTIONS, PLACEHOLDERS, TRIGGERS, mask
from medqa.data.triggers import Triggers

Span = tuple[int, int, str]
LABELLED = [
    json.loads(line) for line in Path(__file__).with_name("privacy.jsonl").read_bytes().splitlines()
]


def masked(text: str, spans: list[Span]) -> str:
    for start, end, kind in sorted(spans, reverse=True):
        text = text[:start] + PLACEHOLDERS[kind] + text[end:]
    return text


def found(text: str) -> list[Span]:
    """The places that mask() replaced, told from its result alone."""
    result, kinds = mask(text)
    marks = re.compile("|".join(map(re.escape, PLACEHOLDERS.values())))
    parts = marks.split(result)
    assert marks.findall(result) == [PLACEHOLDERS[kind] for kind in kinds]
    pattern = "(.+?)".join(map(re.escape, parts))
    match = re.fullmatch(pattern, text, re.DOTALL)
    assert match, result
    return [(*match.span(i), kind) for i, kind in enumerate(kinds, start=1)]


def test_the_set_is_large_and_balanced() -> None:
    texts = [row["text"] for row in LABELLED]
    personal = sum(bool(row["spans"]) for row in LABELLED)
    kinds = Counter(kind for row in LABELLED for _, _, kind in row["spans"])
    assert len(set(texts)) == len(texts) >= 600
    assert 0.4 <= personal / len(texts) <= 0.6
    assert set(kinds) == set(PLACEHOLDERS) == set(DESCRIPTIONS)
    assert min(kinds.values()) >= 15


def test_recall_and_precision_on_the_labelled_set() -> None:
    right: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for row in LABELLED:
        expected = {(start, end, kind) for start, end, kind in row["spans"]}
        got = set(found(row["text"]))
        for counter, spans in (
            (right, expected & got),
            (missed, expected - got),
            (wrong, got - expected),
        ):
            counter.update(kind for _, _, kind in spans)
        if expected != got:
            print(f"{row['text']}: missed {expected - got}, wrong {got - expected}")
    for kind in PLACEHOLDERS:
        print(f"{kind:10} right {right[kind]:3} missed {missed[kind]} wrong {wrong[kind]}")
    recall = right.total() / (right.total() + missed.total())
    precision = right.total() / (right.total() + wrong.total())
    print(f"recall {recall:.4f}, precision {precision:.4f} over {right.total() + missed.total()}")
    assert recall >= 0.98
    assert precision >= 0.98


@pytest.mark.parametrize("row", LABELLED[:: len(LABELLED) // 40], ids=lambda row: row["text"][:12])
def test_masked_text_of_some_lines(row: dict[str, object]) -> None:
    text, spans = str(row["text"]), row["spans"]
    assert isinstance(spans, list)
    assert mask(text) == (masked(text, spans), [kind for _, _, kind in sorted(spans)])


@pytest.mark.parametrize(
    ("text", "expected", "kinds"),
    [
        (
            "患者：王小明，电话010-88886666转123，QQ：12345678",
            "患者：[姓名]，电话[电话]，QQ：[QQ]",
            ["name", "phone", "qq"],
        ),
        (
            "电话010-88886666、88886667或4001234567，加微信abc_12345",
            "电话[电话]、[电话]或[电话]，加微信[微信]",
            ["phone", "phone", "phone", "wechat"],
        ),
        (
            "李医生您好，邮箱12345678@qq.com",
            "[姓名]医生您好，邮箱[邮箱]",
            ["name", "email"],
        ),
        # A phone number stays one behind another word; the keyword alone is nothing.
        ("QQ、微信都是13800138000", "QQ、微信都是[电话]", ["phone"]),
        ("110101199003071233", "[身份证]", ["id_card"]),
        ("wxid_abcde1 4001234567", "[微信] [电话]", ["wechat", "phone"]),
        # Only the placeholder of the second shows what the first is.
        ("7654321QQ12345678", "[QQ]QQ[QQ]", ["qq", "qq"]),
        ("6222021000001234565", "[银行卡]", ["bank_card"]),
    ],
)
def test_examples(text: str, expected: str, kinds: list[str]) -> None:
    assert mask(text) == (expected, kinds)


@pytest.mark.parametrize("service", ["120", "110", "119", "12320", "12345", "10086", "12315"])
def test_short_service_numbers_stay(service: str) -> None:
    text = f"情况紧急请立即拨打{service}，电话{service}，热线：{service}。"
    assert mask(text)[0] is text


@pytest.mark.parametrize(
    "text",
    [
        # One digit off: no check digit, no such place, no such day.
        "110101199003071234",
        "990101199003071233",
        "110101199013071236",
        "6222021000001234566",
        "10000000000",
        "共13812345678个精子",
        "13812345678拷贝",
        "4000000000",
        "12345678",
        "患者，男，45岁",
        "",
    ],
)
def test_a_number_alone_proves_nothing(text: str) -> None:
    assert mask(text) == (text, [])


NUMBER = st.one_of(
    st.integers(0, 10**13).map(str),
    st.decimals(0, 10**6, places=2).map(str),
    st.integers(0, 300).map(str),
)
UNITS = """mg g ml μg IU U 万单位 mmol/L ×10^9/L % mmHg U/L IU/ml copies/ml 拷贝/ml 片 粒 次 元 天
周 岁 个"""
WORDS = """每次 口服 血压 血糖 HCG HBV-DNA 白细胞 肌酐 定量 费用 静滴 维生素C 加 约 患者 复查 体重
V1导联 辅酶Q10 医生说 微信说 QQ糖"""
UNIT, WORD = st.sampled_from(UNITS.split()), st.sampled_from(WORDS.split())
MEASURE = st.builds("{}{}{}".format, WORD, NUMBER, UNIT)
SMALL = st.integers(0, 300)
FINDING = st.one_of(
    MEASURE,
    st.builds("血压{}/{}mmHg".format, SMALL, SMALL),
    st.builds("{}{}-{}{}".format, WORD, SMALL, SMALL, UNIT),
    st.builds("编码{}{:02d}.{:03d}".format, st.sampled_from("AEIJK"), st.integers(0, 99), SMALL),
    st.builds("国药准字{}{:08d}".format, st.sampled_from("HZSJ"), st.integers(0, 10**8 - 1)),
    st.builds("{}年{}月{}日".format, st.integers(1950, 2030), SMALL, SMALL),
    st.dates().map(lambda day: day.strftime("%Y-%m-%d") + "复查"),
    st.dates().map(lambda day: day.strftime("%Y%m%d") + "做的B超"),
)


@given(st.lists(FINDING, min_size=1, max_size=8), st.sampled_from("，。；、 "))
def test_no_dose_or_finding_is_touched(findings: list[str], between: str) -> None:
    text = between.join(findings)
    result, kinds = mask(text)
    assert result is text
    assert not kinds


PIECES = """QQ 微信 电话 身份证 银行卡 加v vx 扣扣 医生 大夫 主任 患者 姓名 ： ， 、 张 王 高
于 李建国 您好 你好 某 男 我叫 [QQ] [姓名]
13800138000 010-88886666 12345678 abc_123 a@b.cn 转1 - 1 周"""
PIECE = st.one_of(st.sampled_from([*PIECES.split(), " "]), st.text(max_size=3))


@given(st.lists(PIECE, max_size=14).map("".join))
def test_masking_twice_is_masking_once(text: str) -> None:
    once, kinds = mask(text)
    again, more = mask(once)
    assert again is once
    assert not more
    assert (once is text) == (not kinds)


def test_masking_twice_on_the_labelled_set() -> None:
    for row in LABELLED:
        once, _ = mask(row["text"])
        assert mask(once) == (once, [])


def test_checking_libraries_are_imported_only_for_a_candidate() -> None:
    code = (
        "import sys; from medqa.data.privacy import mask\n"
        "def loaded(): return {'phonenumbers', 'stdnum'} & set(sys.modules)\n"
        "mask('每次500mg，每日3次，2010年5月请在医生指导下用药'); assert not loaded(), loaded()\n"
        "mask('请联系13800138000'); assert 'phonenumbers' in loaded()\n"
        "mask('110101199003071233'); assert 'stdnum' in loaded()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "text",
    [
        "1" * 50_000,
        "1 " * 25_000,
        "138-" * 12_000,
        "QQ" + " " * 50_000,
        "QQ号" * 15_000,
        "微信：" * 15_000,
        "a" * 50_000 + "@",
        "a." * 25_000 + "@a",
        "@a." * 15_000,
        "张" * 50_000 + "医生",
        "张医生" * 3_000,
        "(" * 50_000 + "0000",
        "电话" + "- " * 25_000 + "00000",
    ],
    ids=lambda text: text[:6],
)
def test_hostile_text_takes_no_longer_than_its_length(text: str) -> None:
    began = time.process_time()
    mask(text)
    assert time.process_time() - began < 3


def test_only_a_text_with_a_trigger_or_numbers_is_masked() -> None:
    triggers = Triggers({"privacy": TRIGGERS})
    for row in LABELLED:
        for text in (row["text"], *re.split("[，。！？\n]", row["text"])):
            if mask(text)[1]:
                assert triggers.of(text), text


def test_a_common_answer_costs_next_to_nothing() -> None:
    text = "高血压是一种常见的慢性病，建议低盐饮食，每日食盐不超过6克，适当运动，按时服药。" * 13
    mask(text)
    began = time.process_time()
    for _ in range(1000):
        mask(text)
    # About 4 µs; the bound leaves room for a slow machine, not for a pattern over all of it.
    assert (time.process_time() - began) / 1000 < 20e-6


def test_real_rows_hold_little_to_mask(shared: Path) -> None:
    hits: Counter[str] = Counter()
    rows = 0
    for line in (
        (shared / "huatuo" / "huatuo26M-testdatasets.part1.jsonl").read_bytes().splitlines()
    ):
        row = json.loads(line)
        rows += 1
        for text in (row["questions"], row["answers"]):
            hits.update(mask(text)[1])
    print(dict(hits))
    assert rows == 3000
    # All read by eye: twelve names of doctors and one QQ.
    assert hits == {"name": 12, "qq": 1}
