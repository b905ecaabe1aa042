from collections.abc import Callable

import pytest

from medqa.data import courtesies, mend


@pytest.mark.parametrize(
    ("rule", "dirty", "expected"),
    [
        # html_entities
        (mend.html_entities, "还可以去药店买&quot;思密达&quot;", '还可以去药店买"思密达"'),
        (mend.html_entities, "血压&lt;90，&amp;nbsp;见&#x300A;说明", "血压<90，\xa0见《说明"),
        (mend.html_entities, "R&ampoule &unknown; A&B", "R&ampoule &unknown; A&B"),
        (mend.html_entities, "食用2ndash;3种，ldquo;补品rdquo;", "食用2–3种，“补品”"),
        (mend.html_entities, "是来大姨妈了&65533;", "是来大姨妈了\ufffd"),
        # html_tags
        (mend.html_tags, "指导意见：<br>白癜风一般", "指导意见：\n白癜风一般"),
        (mend.html_tags, '<p class="a">多<b>喝</b>水</p>', "\n多喝水\n"),
        (mend.html_tags, "血压<90，>60，<18岁", "血压<90，>60，<18岁"),
        (mend.html_tags, "白细胞10<sup>9</sup>/L", "白细胞10^9/L"),
        (mend.html_tags, "每次5<b>10</b>片", "每次5 10片"),
        (mend.html_tags, "好<script>alert(1)</script><!-- 广告 -->的", "好的"),
        # invisible
        (mend.invisible, "头\u200b疼\ufeff吗\x00\ufffd", "头疼吗"),
        (mend.invisible, "每次5\x0010毫克", "每次5 10毫克"),
        # half_width
        (mend.half_width, "维生素Ｂ１２，０．５ｍｇ。", "维生素B12，0.5mg。"),
        (mend.half_width, "含量在16．2％，延期了7－10天", "含量在16.2%，延期了7-10天"),
        (mend.half_width, "β－HCG，2.1＊0.6，1片／次", "β-HCG，2.1*0.6，1片／次"),
        (mend.half_width, "吃药：（每日３次），好！", "吃药：（每日3次），好！"),
        # whitespace
        (mend.whitespace, "病情分析： 你好 ，注意", "病情分析：你好，注意"),
        (mend.whitespace, "  高血压 \t 吃什么药？　", "高血压 吃什么药？"),
        (mend.whitespace, "一行\r\n\r\n  二行\r三行\x0b四行", "一行\n二行\n三行\n四行"),
        # han_punctuation
        (mend.han_punctuation, "适当服药,多休息.", "适当服药，多休息。"),
        (mend.han_punctuation, "怎么办?可以吗!注意;如下:", "怎么办？可以吗！注意；如下："),
        (mend.han_punctuation, "维生素C,维生素E", "维生素C，维生素E"),
        (mend.han_punctuation, "1:1000,12:30,3.5,1,000", "1:1000,12:30,3.5,1,000"),
        (mend.han_punctuation, "用0.5%碘伏,每次.5mg", "用0.5%碘伏，每次.5mg"),
        (mend.han_punctuation, "see http://a.cn, ok. fine", "see http://a.cn, ok. fine"),
        (mend.han_punctuation, "结核球(又称结核瘤)抗体(+)", "结核球（又称结核瘤）抗体（+）"),
        (
            mend.han_punctuation,
            "肝炎病毒(HAV)引起，90mmHg(12kPa)即",
            "肝炎病毒（HAV）引起，90mmHg（12kPa）即",
        ),
        (mend.han_punctuation, "（CINI--2)是，(共12次）。", "（CINI--2）是，（共12次）。"),
        (mend.han_punctuation, "((轻))，(a(b)病)", "（（轻）），（a（b）病）"),
        (mend.han_punctuation, "1,25-(OH)2D3, f(x) = 2", "1,25-(OH)2D3, f(x) = 2"),
        (
            mend.han_punctuation,
            "脂肪衰减327.1.请问，高压160.服药",
            "脂肪衰减327.1。请问，高压160。服药",
        ),
        (
            mend.han_punctuation,
            "到18mmol/l.并发，辛辣食物 .具体",
            "到18mmol/l。并发，辛辣食物 。具体",
        ),
        (mend.han_punctuation, "效果不错.2011年，感染.2.预防", "效果不错。2011年，感染。2.预防"),
        (mend.han_punctuation, "每次.5.饭后，1.2.诊断，3 .松弛", "每次.5.饭后，1.2.诊断，3 .松弛"),
        (mend.han_punctuation, "1.多喝水2.休息", "1.多喝水2.休息"),
        (
            mend.han_punctuation,
            "1，注意消毒.2，治疗，王老吉）.2.空",
            "1，注意消毒。2，治疗，王老吉）。2.空",
        ),
        (mend.han_punctuation, "哭闹.12月1号晚，每次.5，饭后", "哭闹。12月1号晚，每次.5，饭后"),
        (mend.han_punctuation, "值是0-30.请问，2500IU/L.多胎", "值是0-30。请问，2500IU/L。多胎"),
        (
            mend.han_punctuation,
            "问题1：(2011)，周。(2)α，f(2)",
            "问题1：（2011），周。（2）α，f(2)",
        ),
        (mend.han_punctuation, "甲状腺素钠片(优", "甲状腺素钠片（优"),
        (mend.han_punctuation, "1)苄星，问题3：(2011", "1)苄星，问题3：（2011"),
        (mend.han_punctuation, "多休息.1，在饮食.2，多喝水", "多休息。1，在饮食。2，多喝水"),
        (mend.han_punctuation, "严重.女.47岁", "严重。女。47岁"),
        (mend.han_punctuation, "每日.1，饭后，宝宝.5岁", "每日.1，饭后，宝宝.5岁"),
        (
            mend.han_punctuation,
            "会自愈。1避免硬物.2勿张口.3禁咬牙",
            "会自愈。1避免硬物。2勿张口。3禁咬牙",
        ),
        (mend.han_punctuation, "阿莫西林.5口服，每日1次.5片", "阿莫西林.5口服，每日1次.5片"),
        (mend.han_punctuation, "每天，1天3次，阿莫西林.2克口服", "每天，1天3次，阿莫西林.2克口服"),
        (mend.han_punctuation, "阿莫西林.5，饭后，4，多休息", "阿莫西林.5，饭后，4，多休息"),
        # repeated_punctuation
        (mend.repeated_punctuation, "怎么办？？？？急！！！", "怎么办？急！"),
        (mend.repeated_punctuation, "没有反应。。。。黑便", "没有反应。黑便"),
        (mend.repeated_punctuation, "就会好的。,您放心", "就会好的。您放心"),
        (mend.repeated_punctuation, "祝你健康！。", "祝你健康！"),
        (mend.repeated_punctuation, "等等……好的", "等等……好的"),
        (mend.repeated_punctuation, "等等...好的，、", "等等……好的，"),
        (mend.repeated_punctuation, "每次。.5mg", "每次。.5mg"),
        (mend.repeated_punctuation, "abc...def 1::2", "abc...def 1::2"),
        (mend.repeated_punctuation, "康莱特。善宁．．．．", "康莱特。善宁……"),
        (mend.repeated_punctuation, "不怎么~！请问～。好了？～", "不怎么！请问。好了？"),
        (mend.repeated_punctuation, "3~。1～2天。~3天", "3~。1～2天。~3天"),
        (mend.repeated_punctuation, "急呀~~~~", "急呀"),
        (mend.repeated_punctuation, "体温37~", "体温37~"),
        (mend.repeated_punctuation, "2--3个月，15 --20周", "2-3个月，15-20周"),
        (mend.repeated_punctuation, "0.01%--0.02%，CINI--2", "0.01%-0.02%，CINI--2"),
        (mend.repeated_punctuation, "化合物--组织胺，好。----每天", "化合物——组织胺，好。每天"),
        (mend.repeated_punctuation, "*** 特别提示***，5**6", "* 特别提示*，5**6"),
        (mend.repeated_punctuation, "注意，··多喝水，~。", "注意……多喝水。"),
        (mend.repeated_punctuation, "急```口干，固定后····可以", "急……口干，固定后……可以"),
        (mend.repeated_punctuation, "3..药物", "3.药物"),
        # stray_punctuation
        (mend.stray_punctuation, "。买点人参健脾丸", "买点人参健脾丸"),
        (mend.stray_punctuation, "我为您详细解答。‘", "我为您详细解答。"),
        (mend.stray_punctuation, '\\""您好，月经不调。\\""', "您好，月经不调。"),
        (mend.stray_punctuation, r"每次5\"\"10毫克", "每次5 10毫克"),
        (mend.stray_punctuation, '常称为""卫星灶""。', '常称为"卫星灶"。'),
        (mend.stray_punctuation, "一\n，二", "一\n二"),
        (mend.stray_punctuation, "】这情况可考虑", "这情况可考虑"),
        (mend.stray_punctuation, ".5mg每日", ".5mg每日"),
        (mend.stray_punctuation, "是咋回事呀‘", "是咋回事呀"),
        (mend.stray_punctuation, "`我想再瘦点", "我想再瘦点"),
        (mend.stray_punctuation, "医生建议切除[", "医生建议切除"),
        (mend.stray_punctuation, "加强营养，undefined", "加强营养，"),
        (mend.stray_punctuation, "值undefined2，is undefined", "值undefined2，is undefined"),
        (mend.stray_punctuation, "能动手术吗》", "能动手术吗"),
        (mend.stray_punctuation, "见《说明书》", "见《说明书》"),
        (mend.stray_punctuation, "提高自身抵抗力／", "提高自身抵抗力"),
        (mend.stray_punctuation, "请您告诉我。—", "请您告诉我。"),
        (mend.stray_punctuation, "方法（），FE值275()，f()", "方法，FE值275，f()"),
        (mend.stray_punctuation, "3（）5", "3 5"),
        (mend.stray_punctuation, "过敏少见（", "过敏少见（"),
        (mend.stray_punctuation, "（）", "（）"),
        (mend.stray_punctuation, "？？？", "？？？"),
    ],
)
def test_characters(rule: Callable[[str], str], dirty: str, expected: str) -> None:
    assert rule(dirty) == expected
    assert rule(expected) == expected


@pytest.mark.parametrize(
    "text",
    ["頭痛吃什麼藥？醫生說檢查結果正常。", "裡急後重，應做腸鏡檢查", "臺灣的藥"],
)
def test_traditional_characters_are_left_as_they_are(text: str) -> None:
    for module in (mend, courtesies):
        rules = [
            v for v in vars(module).values() if getattr(v, "__module__", "") == module.__name__
        ]
        assert len(rules) >= 4
        for rule in rules:
            if rule.__name__[0] != "_" and rule.__name__ not in ("unless_empty", "unquoted"):
                assert rule(text) == text
