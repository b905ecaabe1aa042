"""What names one drug as being another, and what only speaks of both."""

import pytest

from medqa.compare.claims import Term, Text
from medqa.compare.spelling import Names

NAMES = Names.of(
    {
        "西地那非": ["万艾可", "伟哥", "sildenafil", "viagra"],
        "他达拉非": ["希爱力", "cialis"],
        "伐地那非": ["艾力达"],
    }
)


def named(term: str, answer: str) -> bool:
    return Term.parse(term, NAMES).claimed(Text(answer, NAMES)) is not None


@pytest.mark.parametrize(
    "answer",
    [
        "西地那非（希爱力）是一种药。",
        "西地那非(Viagra/Cialis)",
        "西地那非（英文名：Cialis）",
        "西地那非（万艾可、希爱力）",
        "西地那非片（希爱力）",
        "Sildenafil (Cialis) 用于",
        "西地那非又称希爱力",
        "西地那非，也叫希爱力，用于",
        "西地那非就是希爱力",
        "西地那非也就是我们常说的希爱力",
        "西地那非即希爱力",
        "西地那非，商品名有万艾可、希爱力等",
        "西地那非，别名：希爱力、艾力达",
        "西地那非是一种治疗勃起功能障碍的药物，商品名为希爱力",
        "西地那非\n商品名：希爱力",
        "西地那非是他达拉非",
        "西地那非的主要成分是他达拉非",
        "希爱力是西地那非的商品名",
        "希爱力（通用名西地那非）",
        "西地那非和他达拉非是同一种药",
        "西地那非和他达拉非其实是一样的，只是商品名不同",
        "西地那非与他达拉非都是相同的。",
        "西地那非是伐地那非",
        "伟哥又叫艾力达",
    ],
)
def test_named(answer: str) -> None:
    assert named("西地那非=他达拉非|伐地那非", answer)


@pytest.mark.parametrize(
    "answer",
    [
        "西地那非又名万艾可，不是希爱力",
        "万艾可（Viagra），即西地那非，与希爱力不同",
        "西地那非（万艾可）和他达拉非（希爱力）",
        "西地那非、他达拉非、伐地那非都属于PDE5抑制剂",
        "西地那非与他达拉非属于同一类药物",
        "西地那非是与他达拉非类似的药物",
        "西地那非是希爱力的同类药物",
        "不要将西地那非与他达拉非混淆，他达拉非是另一种药",
        "西地那非和他达拉非的商品名分别是万艾可和希爱力",
        "西地那非的商品名是万艾可，他达拉非的商品名是希爱力",
        "西地那非即万艾可，他达拉非即希爱力",
        "很多人以为西地那非就是希爱力",
        "西地那非就是希爱力吗？不是",
        "西地那非就是希爱力的说法是错误的",
        "西地那非不是他达拉非",
        "西地那非（注意不是他达拉非）",
        "西地那非（或他达拉非）",
        "有患者问西地那非是不是希爱力",
        "西地那非是PDE5抑制剂，他达拉非是长效的",
        "西地那非是短效药而他达拉非，是长效药",
        "西地那非比他达拉非起效快",
        "西地那非可换成他达拉非",
        "西地那非。他达拉非",
        "西地那非和他达拉非的作用机制是一样的",
        "西地那非和他达拉非是一样的作用机制",
        "西地那非和他达拉非不是一样的",
        "西地那非应立即停用，即使换成他达拉非也要问医生",
    ],
)
def test_not_named(answer: str) -> None:
    assert not named("西地那非=他达拉非|伐地那非", answer)


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        ("布洛芬是一种常用的抗生素", True),
        ("布洛芬属于抗生素类药物", True),
        ("布洛芬，是抗生素。", True),
        ("抗生素（如布洛芬）", True),
        ("布洛芬不属于抗生素", False),
        ("布洛芬是解热镇痛药，不是抗生素", False),
        ("布洛芬是不同于抗生素的止痛药", False),
        ("布洛芬能代替抗生素", False),
        ("布洛芬与抗生素同服", False),
        ("布洛芬是否为抗生素", False),
    ],
)
def test_a_kind(answer: str, there: bool) -> None:
    assert named("布洛芬=抗生素", answer) is there
