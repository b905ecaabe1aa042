"""The rules by which an answer is read, in the order of the docstring of `claims`.

Each case is a term, an answer, and whether the answer asserts the term (or claims it, where the
test says so).
"""

import pytest

from medqa.compare.claims import Term, Text
from medqa.compare.spelling import Names

NAMES = Names.of(
    {
        "西地那非": ["万艾可", "伟哥", "sildenafil", "viagra"],
        "他达拉非": ["希爱力", "cialis", "tadalafil"],
        "伐地那非": ["艾力达"],
        "饮酒": ["喝酒"],
        "氧氟沙星": ["泰利必妥"],
        "左氧氟沙星": ["可乐必妥"],
    }
)


def asserts(term: str, answer: str, question: str = "") -> bool:
    return Term.parse(term, NAMES).asserted(Text(answer, NAMES, question)) is not None


def claims(term: str, answer: str, question: str = "") -> bool:
    return Term.parse(term, NAMES).claimed(Text(answer, NAMES, question)) is not None


def mentions(term: str, answer: str) -> bool:
    return Term.parse(term, NAMES).mentioned(Text(answer, NAMES)) is not None


@pytest.mark.parametrize(
    ("term", "answer"),
    [
        ("120", "请拨打１２０。"),
        ("维生素B12", "维生素 Ｂ １２"),
        ("双硫仑样反应", "可引起雙硫侖樣反應"),
        ("雙硫侖", "双硫仑"),
        ("不能喝酒", "**不能**“喝酒”"),
        ("低血压", "低\u200b血\n压"),
        ("4000毫克", "每日 4,000 毫克"),
        ("ibuprofen", "Ibuprofen"),
        ("低血压", "低血壓"),
    ],
)
def test_1_spelling(term: str, answer: str) -> None:
    assert asserts(term, answer)


@pytest.mark.parametrize(
    ("term", "answer", "there"),
    [
        ("4克", "每日4克", True),
        ("4克", "每日14克", False),
        ("4克", "每日0.4克", False),
        ("0.4克", "每日0.4克", True),
        ("120", "共1200元", False),
        ("120", "请拨打120.", True),
        ("110", "报警电话是110,120是急救电话", True),
        ("110", "报警电话是110，120是急救电话", True),
        ("h2o", "H2O2", False),
        ("h2o", "H2O", True),
        ("10mg", "10mg", True),
        ("10mg", "110mg", False),
        ("sildenafil", "sildenafils", False),
        ("sildenafil", "take sildenafil daily", True),
        ("nac", "nacl", False),
    ],
)
def test_2_whole_words(term: str, answer: str, there: bool) -> None:
    assert asserts(term, answer) is there


@pytest.mark.parametrize(
    ("term", "answer", "there"),
    [
        ("可以吃西地那非", "可以吃伟哥", True),
        ("可以吃伟哥", "可以吃西地那非", True),
        ("饮酒", "喝酒后", True),
        ("viagra", "万艾可", True),
        ("viagra", "viagras", False),
        ("伟哥", "希爱力", False),
        ("氧氟沙星", "左氧氟沙星", False),
        ("左氧氟沙星", "左氧氟沙星", True),
        ("泰利必妥", "氧氟沙星与左氧氟沙星", True),
        ("饮酒后吃伟哥", "喝酒后吃西地那非", True),
    ],
)
def test_3_names(term: str, answer: str, there: bool) -> None:
    assert asserts(term, answer) is there


@pytest.mark.parametrize(
    ("term", "answer", "there"),
    [
        ("熬夜", "不要喝水，可以熬夜", True),
        ("熬夜", "不要喝水。可以熬夜", True),
        ("熬夜", "不要喝水；熬夜", True),
        ("熬夜", "不要喝水\n熬夜", True),
        ("熬夜", "不\n要熬夜", False),
        ("熬夜", "不要喝水!熬夜", True),
        ("熬夜", "不要喝水——熬夜", True),
        ("熬夜", "不要喝水.熬夜", True),
        ("熬夜", "不要喝1.5升水和熬夜", False),
        ("熬夜", "不要（大量）喝水、熬夜", False),
        ("熬夜", "西地那非（不是药）和熬夜", True),
        ("立即…医院", "立即送往最近的医院", True),
        ("立即…医院", "立即平卧，再去医院", False),
        ("立即...医院", "立即送医院", True),
        ("立即…医院", "医院立即", False),
        ("立即…医院", "立即不要去医院", False),
        ("立即…医院", "不要立即去医院", False),
        ("不可以…西地那非", "不可以服用西地那非", True),
        ("不可以…西地那非", "并非不可以服用西地那非", False),
    ],
)
def test_4_clauses(term: str, answer: str, there: bool) -> None:
    assert asserts(term, answer) is there


@pytest.mark.parametrize(
    "answer",
    [
        "不能吸烟",
        "不可以吸烟",
        "不要吸烟",
        "不宜吸烟",
        "不建议您吸烟",
        "禁止吸烟",
        "严禁吸烟",
        "避免吸烟",
        "应避免吸烟",
        "切勿吸烟",
        "请勿吸烟",
        "别吸烟",
        "千万别吸烟",
        "无需吸烟",
        "没有吸烟",
        "未吸烟",
        "并非吸烟",
        "而不是吸烟",
        "停止吸烟",
        "用不着吸烟",
        "忌吸烟",
        "不能喝酒、吸烟",
        "不能喝酒和吸烟",
        "不能喝酒、熬夜、吸烟及劳累",
        "不大可能吸烟",
        "不一定吸烟",
    ],
)
def test_5_a_negation_binds_what_follows(answer: str) -> None:
    assert not asserts("吸烟", answer)
    assert mentions("吸烟", answer)
    assert asserts("吸烟", f"吸烟{answer.replace('吸烟', '')}")


@pytest.mark.parametrize(
    ("term", "answer"),
    [
        ("头晕", "恶心、不适、头晕"),
        ("头晕", "四肢无力、头晕"),
        ("头晕", "大小便失禁、头晕"),
        ("头晕", "睡眠不好、头晕"),
        ("头晕", "意识不清、头晕"),
        ("头晕", "不仅头晕"),
        ("头晕", "特别头晕"),
        ("头晕", "不良反应为头晕"),
        ("头晕", "消化不良伴头晕"),
        ("头晕", "禁忌症包括头晕"),
        ("按压", "不间断地按压"),
        ("按压", "不停按压"),
        ("夺下菜刀", "趁他不注意夺下菜刀"),
        ("未成年人", "未成年人"),
        ("急诊", "不满28天发烧一律急诊"),
        ("胸外按压", "检查呼吸，没有就做胸外按压"),
        ("胸外按压", "没有的话立即胸外按压"),
        ("头晕", "不过头晕"),
        ("低血压", "缓慢起身以避免低血压"),
        ("低血压", "避免引起低血压"),
        ("痛风", "别嘌醇主要用于痛风"),
        ("高血脂", "多吃不饱和脂肪酸治高血脂"),
        ("不孕", "未破裂卵泡引起不孕"),
    ],
)
def test_5_what_only_looks_like_a_negation(term: str, answer: str) -> None:
    assert asserts(term, answer)


@pytest.mark.parametrize(
    ("term", "answer", "there"),
    [
        ("低血压", "不能喝酒以免低血压", True),
        ("低血压", "不能与酒同服会导致低血压", True),
        ("低血压", "不会导致低血压", False),
        ("低血压", "不会直接导致低血压", False),
        ("低血压", "并没有引起低血压", False),
        ("死亡", "不治疗会死亡", True),
        ("死亡", "不及时治疗导致死亡", True),
        ("可以服用", "如果没有禁忌可以服用", True),
        ("可以服用", "如果没有其他禁忌可以服用", True),
        ("可以服用", "无禁忌者可以服用", True),
        ("可以服用", "不可以服用", False),
        ("120", "不要惊慌立即拨打120", True),
        ("120", "不要惊慌请拨打120", True),
        ("120", "不要立即拨打120", False),
        ("120", "停止活动并拨打120", True),
        ("多喝水", "避免受凉、多喝水", True),
        ("过多喝水", "避免受凉、过多喝水", False),
        ("睡觉", "不要吃完就睡觉", False),
        ("服药", "不能在没有医生指导的情况下服药", False),
        ("西地那非", "不是他达拉非而是西地那非", True),
        ("手术", "药物不理想再考虑手术", True),
    ],
)
def test_6_reach(term: str, answer: str, there: bool) -> None:
    assert asserts(term, answer) is there


@pytest.mark.parametrize(
    ("term", "answer", "there"),
    [
        ("去医院", "不得不去医院", True),
        ("去医院", "不能不去医院", True),
        ("可以喝酒", "并非不可以喝酒", True),
        ("喝酒", "不是不能喝酒，但要适量", True),
        ("喝酒", "没有人不喝酒", False),
        ("就医", "不要忘记就医", True),
        ("就医", "切勿延误就医", True),
        ("就医", "忘记就医", True),
        ("按压", "不要停止按压", True),
        ("出血", "出血不可避免", True),
        ("出血", "不可避免出血", True),
        ("可以喝酒", "没有证据表明可以喝酒", False),
        ("可以喝酒", "没有证据表明孕妇可以喝酒", False),
        ("可以喝酒", "不代表可以喝酒", False),
        ("可以喝酒", "不要以为可以喝酒", False),
        ("停药", "不能因为没有症状就停药", False),
        ("停药", "没有症状就停药", True),
        ("没睡好", "不能当作没睡好", False),
        ("不能喝酒", "不代表老人不能喝酒", False),
    ],
)
def test_7_two_negations(term: str, answer: str, there: bool) -> None:
    assert asserts(term, answer) is there


@pytest.mark.parametrize(
    ("term", "answer", "there"),
    [
        ("不建议", "不建议饮酒", True),
        ("不建议", "并不建议饮酒", True),
        ("不建议", "不是不建议", False),
        ("禁止", "没有禁止", False),
        ("戒酒", "没有必要戒酒", False),
        ("戒酒", "不用特意去戒酒", False),
        ("禁用", "孕妇禁用", True),
        ("禁用", "并非禁用", False),
        ("避免", "不要饮酒避免劳累", True),
        ("避免", "无需避免", False),
        ("不要", "要不要去医院", False),
        ("不能一起", "没有说不能一起吃", False),
        ("不良反应", "没有不良反应", False),
        ("未成年人", "不包括未成年人", False),
        ("孕妇禁用", "华法林的禁忌：孕妇禁用", True),
        ("孕妇禁用", "并没有说孕妇禁用", False),
        ("孕妇禁用", "不是孕妇禁用", False),
    ],
)
def test_8_terms_that_hold_a_negation(term: str, answer: str, there: bool) -> None:
    assert asserts(term, answer) is there


@pytest.mark.parametrize(
    ("term", "answer", "there"),
    [
        ("4克", "每日不超过4克", True),
        ("4克", "每日不能超过4克", True),
        ("超过4克", "每日不能超过4克", False),
        ("4克", "每日不能吃4克", False),
        ("24小时", "不要在24小时内饮酒", True),
        ("饮酒", "不要在24小时内饮酒", False),
        ("6岁", "禁止6岁以下儿童使用", True),
        ("两周", "不能在停药后两周内服用", True),
        ("24小时", "不要等24小时", False),
    ],
)
def test_9_figures(term: str, answer: str, there: bool) -> None:
    assert asserts(term, answer) is there


@pytest.mark.parametrize(
    ("term", "answer", "there"),
    [
        ("饮酒", "禁忌：饮酒、吸烟", False),
        ("吸烟", "禁忌：饮酒，吸烟", False),
        ("吸烟", "避免以下行为：饮酒，吸烟。", False),
        ("休息", "避免以下行为：饮酒，吸烟。多休息", True),
        ("催吐", "以下做法是错误的：\n1. 喝水；\n2. 催吐。", False),
        ("120", "以下做法是错误的：\n1. 喝水；\n2. 催吐。\n请拨打120", True),
        ("催吐", "误区一：催吐", False),
        ("催吐", "错误做法：①喝水②催吐", False),
        ("120", "不要惊慌：立即拨打120", True),
        ("120", "注意不能走动：拨打120", True),
        ("8:30", "不能晚于8:30", True),
    ],
)
def test_10_headings(term: str, answer: str, there: bool) -> None:
    assert asserts(term, answer) is there


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        ("可以喝酒吗", False),
        ("可以喝酒么，医生", False),
        ("可以喝酒？", False),
        ("可以喝酒吗？不可以。", False),
        ("可以喝酒吗？\n不可以。", False),
        ("可以喝酒吗？可以。", True),
        ("可以喝酒吗？当然可以，", True),
        ("能不能喝酒，可以喝酒的话", True),
        ("是否可以喝酒要问医生", False),
        ("难道可以喝酒吗", False),
        ("怎么可以喝酒呢", False),
        ("谁说不可以喝酒", True),
        ("很多人以为可以喝酒", False),
        ("有人说可以喝酒，其实不行", False),
        ("不能喝，除非医生说可以喝酒", False),
        ("什么时候可以喝酒", True),
    ],
)
def test_11_questions_and_hearsay(answer: str, there: bool) -> None:
    assert asserts("可以喝酒", answer) is there


def test_11_a_rhetorical_question_turns_a_negation() -> None:
    assert asserts("就医", "难道不应该就医吗？")
    assert asserts("去医院", "怎么能不去医院呢？")
    assert not asserts("就医", "难道应该就医吗？")


@pytest.mark.parametrize(
    ("term", "answer", "there"),
    [
        ("可以喝酒", "可以喝酒是错误的", False),
        ("可以喝酒", "可以喝酒的说法没有科学依据", False),
        ("可以喝酒", "可以喝酒，这种说法是错误的", False),
        ("可以喝酒", "可以喝酒，这是谣言", False),
        ("可以喝酒", "少量可以喝酒，这很常见", True),
        ("多喝水排", "多喝水排不掉", False),
        ("多喝水排", "多喝水排出去", True),
        ("低血压", "低血压是不会发生的", False),
        ("低血压", "低血压患者禁用", True),
        ("急诊", "急诊人多不用去", False),
        ("急诊", "急诊不用。", False),
        ("急诊", "急诊不用预约", True),
    ],
)
def test_12_untrue(term: str, answer: str, there: bool) -> None:
    assert asserts(term, answer) is there
    assert not claims(term, answer) or there


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        ("请立即就医", True),
        ("如果症状加重，请就医", False),
        ("如症状不缓解请就医", False),
        ("若出现抽搐，要平卧，然后就医", False),
        ("若出现抽搐，要平卧。现在请就医", True),
        ("若出现抽搐，要平卧，现在请就医", True),
        ("必要时就医", False),
        ("如果体温超过39度，请就医", False),
        ("一旦出现这种情况，应就医", True),
        ("如果嘴唇发紫，请就医", True),
        ("如果出现嘴唇发紫，请就医", True),
        ("如果嘴唇仍发紫，请就医", False),
        ("如果嘴唇已经持续发紫，请就医", True),
        ("如果没有时间，请就医", True),
        ("先针灸，如果针灸没有效果，再去医院就医", False),
        ("先吃药，如果没效果就就医", False),
        ("如果孩子喘，请就医，吃药没有效果", True),
        ("观察6个小时，还是没有尿再去急诊就医", False),
        ("明天还喘的话就医", False),
        ("叫不醒就打120就医", False),
        ("肿起来时立即去医院就医", False),
        ("不要走动，同时立即去医院就医", True),
        ("先喝茶，醒不过来再去医院就医", False),
        ("嘴唇发紫就打120就医", True),
        ("喷完药以后再去医院就医", False),
        ("先喷药再去医院就医", True),
        ("如果晚上憋气，马上就医", False),
        ("以后再发作要立即就医", False),
        ("现在还喘的话，请马上就医", True),
    ],
)
def test_13_put_off(answer: str, there: bool) -> None:
    assert asserts("就医", answer, "孩子喘得厉害，嘴唇发紫怎么办") is there
    assert claims("就医", answer), "what is wrong later is wrong now"


def test_13_only_then() -> None:
    assert not asserts("就医", "肿起来才去医院就医")


def test_13_common_words_repeat_no_question() -> None:
    assert not asserts("就医", "如果出现抽搐，请就医", "孩子出现嘴唇发紫怎么办")


@pytest.mark.parametrize(
    ("term", "answer", "there"),
    [
        ("饮酒", "饮酒是绝对禁止的", False),
        ("饮酒", "饮酒属于禁忌", False),
        ("饮酒", "服药期间饮酒不可取", False),
        ("服用西地那非", "酒后服用伟哥绝对不行！", False),
        ("喝水", "给孩子喝水容易呛到", False),
        ("喝水", "喂他喝水会导致窒息", False),
        ("喝水", "喝水、催吐都不可取", False),
        ("喝水", "喝水、吃饭，催吐都不可取", True),
        ("喝水", "给他喝水，这样很危险", False),
        ("喝水", "喝水没有任何作用", False),
        ("喝水", "喝水没有什么危险", True),
        ("喝水", "喝水影响不大", True),
        ("喝水", "喝水可以减轻损伤", True),
        ("喝水", "如果自行喝水，可能呛到", False),
        ("加重再", "如果加重再去医院", True),
        ("可以喝水", "可以喝水但会导致窒息", True),
        ("可以喝水", "可以喝水，孕妇禁用", True),
        ("可以服用", "可以服用但孕妇禁用", True),
        ("治癫痫", "治癫痫的是卡马西平", False),
        ("治癫痫", "治癫痫的是卡托普利", True),
        ("入渤海", "黄河才是流入渤海的", False),
    ],
)
def test_14_not_claimed(term: str, answer: str, there: bool) -> None:
    assert claims(term, answer, "卡托普利治什么病") is there
    assert asserts(term, answer), "it is asserted all the same"


def test_mentioned_is_whatever_is_there() -> None:
    assert mentions("癌", "这不是癌")
    assert mentions("立即…医院", "不要立即去医院")
    assert not mentions("癌", "这不是病")
    assert not mentions("立即…医院", "立即平卧，去医院")


@pytest.mark.parametrize(
    "answer",
    ["", " \n", "\u200b", "。", "??", ":", "(", ")", "、", "1.", "不", "不不不", "如果"],
)
def test_nothing_breaks_it(answer: str) -> None:
    assert not asserts("低血压", answer)
    assert not claims("西地那非=他达拉非", answer)


def test_the_words_around_are_those_of_the_answer() -> None:
    answer = "您好，根据您的描述考虑，**饮 酒**後可能\n出現雙硫侖樣反應，請立即停藥就醫。"
    text = Text(answer, NAMES)
    hit = Term.parse("双硫仑样反应", NAMES).asserted(text)
    assert hit
    assert text.quote(hit.span) == "…*饮 酒**後可能 出現雙硫侖樣反應，請立即停藥就醫。"
    hit = Term.parse("饮酒", NAMES).mentioned(text)
    assert hit
    assert "饮 酒" in text.quote(hit.span)
