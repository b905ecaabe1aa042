"""Names of people in a text, as far as a title or a word beside them tells.

A surname, with or without a given name, before 医生, 大夫, 主任, 教授, 护士, 女士 and the like; a
full name behind 患者, 姓名 and the like. The module is long because of its word lists: most of it
says what is no name.
"""

import re
from collections.abc import Iterator

__all__ = ["TRIGGERS", "Span", "may_hold_names", "names"]

Span = tuple[int, int, str]  # start, end, type

# Surnames that hardly begin a common word: a title behind one is enough.
_CLEAR = frozenset(
    "王李张刘陈杨赵吴徐孙朱胡郭罗宋郑韩唐冯董萧曹袁邓沈彭吕卢蒋蔡贾魏薛潘杜汪姜姚谭廖邹郝崔"
    "邱秦邵孟龚樊倪俞柳裴祁翟阮覃聂靳耿甄褚佟滕卞邢邬阎闫岑匡缪骆娄冉晏鲍韦霍詹柯隋蔺郜鄢郗"
    "芮晁冼巫栾裘奚胥邝闵戎敖邰郦臧蒯陶瞿刁谌"
)
# Surnames that are words too, so that something must stand before them: a stop, a greeting, 找.
_COMMON = frozenset(
    "黄周高林何马梁谢许傅曾苏叶余戴夏钟田任方石熊金陆孔白康毛史顾侯龙万段雷钱汤尹易常武乔贺"
    "赖文洪季严牛童路盛关华郎凌莫欧齐申舒宁施车闻柏颜温左辛冷桂甘柴岳卫游尚管伍焦巩沙项纪苗"
    "鲁葛庄兰梅涂桑屈解江丁范程安成单连全祝查于向和应从洛章艾门明黎喻戚芦庞寇丘窦肖殷翁蒲鞠"
    "包谷简蓝盖池丛迟屠郁茅景仲伊仇厉符蒙贡劳牟贝佘饶卓虞荆揭辜濮邸竺穆姬尤毕曲卜吉晋廉冀栗"
    "楚苑谈燕房边席党古"
)
# Of these, words that stand before 医生 as verbs and prepositions do: only 于医生，您好 is a name.
_VERBS = frozenset("何谢任于向和应从全单连祝查解关安成曾闻管申施明门边")
# And these begin so many words that only the bare surname counts.
_BARE = frozenset(
    "尤毕曲卜吉晋廉冀栗楚苑谈燕房边席党古简蓝盖池丛迟景蒙沙游谷左冷章项车包左路华欧武文严盛"
    "温常史牛颜甘柴卫焦纪苗庄黎喻戚芦丘"
)
# Of the verbs, those that are seldom one behind 科 or 医院, or where a sentence begins.
_WEAK = frozenset("任曾申安成闻")
_FIRST = _CLEAR | _COMMON
_FULL = _FIRST - _VERBS - _BARE
_DOUBLE = frozenset(
    ["欧阳", "司马", "上官", "诸葛", "司徒", "慕容", "皇甫", "令狐", "夏侯", "公孙"]
)

# A given name holds none of these; most of what precedes 医生 does.
_NO_NAME = frozenset(
    "的了是在有我你您他她它们这那不没很都也就还要会能可以给让叫把被向跟和与或及从到去来看问请找"
    "说道医院科病症炎痛疼热咳血压糖尿便药片粒胶囊针术检查诊治疗吃喝睡孕产经期带下月日天年时点分"
    "吗呢吧啊呀么什怎哪谁几多少个位名次岁女儿主先师性旧述口嘴开力重型级等为因于对后前里外内中间"
    "当该每某各其所并且但而却只已曾再又最太更非无未者肿瘤癌疮疹痒汗泻吐脉肝肾肺胃肠脾胆脑骨腹胸"
    "腰腿脚手头面皮肤眼耳鼻喉牙膀胱阴阳虚寒湿毒菌素剂液量服用法做过得着该应需见定被将令使氏牌州"
    "乱续绝围泌尿房代朝区县市村镇省族色式品员队部委局厂店街系层条单杯辆种亩吨件岸边胞险浓度难率"
    "数值线管茸菜鱼鼠形酸氨染怒躁滞淋胀喘绀萎斑疸烧昏迷晕龋龄瘦胖便"
    "，。！？；：、,.!?;:（）()【】[]“”\"'…~～《》<>/·- \t\n0123456789"
)
# What looks like a surname with a given name and is none.
_NO_PERSON = (
    "张家口|张家港|王者|李子|王子|孙子|孙女|胡同|罗湖|郑重|韩国|唐山|唐都|萧山|沈阳|吕梁"
    "|潘家园|秦皇岛|邵阳|孟加拉|黎明|徐汇|徐家汇|杨浦|杨凌|吴江|朱砂|杨梅|姜黄|姜片|陈皮"
    "|陈醋|杜仲|胡桃|胡椒|卢戈|汪洋|胡言|蒲公|蔡司|庞大|喻义|黄金|黄石|黄山|黄冈|高级|高明"
    "|高手|高水平|高端|高校|高等|周末|周一|周二|周三|周四|周五|周六|周口|周边|周围|马上"
    "|马来|林业|许多|许昌|苏北|苏南|余姚|余杭|夏季|钟楼|方便|方案|方向|石家庄|石化|石景山"
    "|石狮|金牌|金华|金山|金坛|白人|白衣|白班|白云|康复|毛泽|史上|顾问|龙华|龙岩|万一|万能"
    "|万家|钱塘|汤山|易学|常规|常见|常德|常熟|常务|常驻|武汉|武警|武昌|武进|文山|文化|文登"
    "|洪山|洪都|严格|严肃|童年|路上|路过|盛京|盛世|房山|华西|华山|华东|华侨|华北|华南|华夏"
    "|凌晨|莫名|齐鲁|齐齐|舒适|舒心|宁波|宁夏|宁德|水平|水利|古代|古城|车站|包括|包头|包皮"
    "|费心|席间|温江|温暖|温岭|左右|左侧|左手|党员|党校|冷静|冷漠|桂林|甘肃|岳父|岳母|卫生"
    "|游客|游泳|井冈|沙坪|沙市|项目|纪念|苗族|鲁迅|葛洲|庄河|兰溪|梅毒|梅花|宫颈|宗教|封闭"
    "|屈光|江苏|江西|江浙|江北|江南|江阴|江门|江宁|丁香|丁桂|范县|程度|程序|米国|洛阳|章丘"
    "|艾滋|艾灸|田园|田地|田径|康宁|罗马|罗列|董事|胡须|范例|王室|王国|陈年|陈列|孟买|张掖"
    "|张湾|祁连|邢台|樊城|吕宋|杜鹃|杜冷|柳叶|柳树|韩语|唐诗|秦岭|朱红|曹操|苏联|苏格|苏维"
    "|万元|万千|万余|高速|高度|高兴|高原|高温|高山|高利|黄土|黄色|金属|金融|金字|石油|石灰"
    "|石膏|马路|马铃|雷锋|陆军|陆地|余种|林区|方程|孔子|毛笔|钟表|钱包|段落|夏令|马拉|马克"
    "|凌空|申请|顾客|顾虑|洪水|季度|桂花|兰花|葛根|丁字|江湖|易于|易感|尚未|岳阳|鲁能|宁愿"
    "|宁可|牛奶|牛皮|季节|金陵|乔装|安贞"
)
_IS_NO_PERSON = re.compile(rf"(?:{_NO_PERSON})|.[家子]$|白大")
# 紧张医生, 行李医生: the surname's character ends another word.
_TAIL = re.compile(
    "[紧主开夸扩慌纸曲舒伸嚣铺声皮二三四五六七八九十两几半这那每多第百千万数]张"
    "|(?<![周期])一张|[国君女亲魔药霸猴蜂]王|[桃行]李|[柴二板]胡|[白垂]杨"
    "|[子外爷祖儿侄徒长公]孙|[隋汉荒盛晚初大南后颓]唐|[生干]姜|[新条铺直杂]陈"
    "|[网开波菠收搜暹新绫]罗|[北南]宋|[先前]秦|夜谭|城郭|商贾|东吴|端倪|汪汪|[垂杨]柳"
)

# A title and a character of it that is rarer in medical text.
_TITLES = (
    ("医", "医生"),
    ("夫", "大夫"),
    ("师", "医师"),
    ("任", "主任"),
    ("授", "教授"),
    ("士", "护士长"),
    ("士", "护士"),
    ("士", "女士"),
    ("师", "老师"),
    ("先", "先生"),
)
_LEADS = (
    ("患", "患者"),
    ("患", "患儿"),
    ("姓", "姓名"),
    ("叫", "我叫"),
    ("人", "病人"),
    ("联", "联系人"),
    ("户", "户名"),
)
# What may stand before a surname that is a word too.
_BEFORE = re.compile(
    r"(?:^|[，。！？；：、,.!?;:（(【“”\"'…~～》\n]|(?<![0-9])[ \t]|你好|您好|请问|谢谢|感谢|多谢"
    r"|咨询|预约|联系|麻烦|拜托|找|挂|约|[尊敬亲]?[敬爱]的|科|医院|人民|中心|门诊|叫"
    r"|姓|老|小|当时|[院科]的|由|是|跟|专家|主任|教授|医生|大夫|还有|以及)$"
)
_EARLIER = re.compile("(?:[上前]面|楼上|刚才|昨天|今天)$")  # before a name, not a bare surname
_WEAKLY_BEFORE = re.compile("[在让被对把为和与及因的给到去跟向请位名]$")
_GREETING = re.compile(r"(?:你好|您好|谢谢|感谢|[尊敬亲][敬爱]的|麻烦|请问)[，,！!。：: ]{0,2}$")
_BREAK = re.compile(r"(?:^|[，。！？；：、,.!?;:\n]|找|姓|约|挂)$")
_PLACED = re.compile(r"(?:^|科|医院|[。！？；.!?;\n])$")
_FOLLOWED = re.compile("[，,：:！!。？? 您你的说]|$")
_ANSWERED = re.compile(
    r"[，,：:！! ]{0,2}(?:您好|你好|您|好[，,！!]|上午好|下午好|早上好|晚上好|新年好|辛苦)"
)
_ADDRESSED = re.compile(r"[，,！!。？?：: ]|$|我|请问|帮|麻烦")


def may_hold_names(text: str) -> bool:
    """Tells whether `text` holds a word that can make a name of what stands beside it."""
    # One character is found ten times faster than two, so the rarer one of a word is asked first.
    return (
        "医生" in text
        or ("夫" in text and "大夫" in text)
        or ("师" in text and ("医师" in text or "老师" in text))
        or ("任" in text and "主任" in text)
        or ("授" in text and "教授" in text)
        or ("士" in text and ("护士" in text or "女士" in text))
        or ("患" in text and ("患者" in text or "患儿" in text))
        or ("先" in text and "先生" in text)
        or ("姓" in text and "姓名" in text)
        or ("叫" in text and "我叫" in text)
        or ("户" in text and "户名" in text)
        or ("岁" in text and "病人" in text)
        or ("联" in text and "联系人" in text)
        or ("某" in text and _SOMEBODY.search(text) is not None)
    )


def names(text: str) -> Iterator[Span]:
    """Yields the places of names in `text`: start, end and ``name``."""
    for mark, title in _TITLES:
        at = text.find(title) if mark in text else -1
        while at >= 0:
            after = at + len(title)
            end = at - 1 if text[at - 1 : at] == "副" else at
            if end and not _SURNAMES.isdisjoint(text[max(0, end - 4) : end]):
                start = _name_before(text, end, after)
                if start is not None:
                    yield start, end, "name"
            if text[after : after + 1] in _OPENERS and (span := _name_after(text, after)):
                yield span
            at = text.find(title, after)
    for mark, lead in _LEADS:
        at = text.find(lead) if mark in text else -1
        while at >= 0:
            at += len(lead)
            if text[at : at + 1] in _OPENERS and (span := _name_after(text, at)):
                yield span
            at = text.find(lead, at)
    if "某" in text:
        for found in _SOMEBODY.finditer(text):
            yield *found.span(), "name"


def _name_after(text: str, at: int) -> Span | None:
    """Returns the place of the name that begins behind the word that ends at `at`."""
    found = _AFTER.match(text, at)
    if not found:
        return None
    name = found[found.lastgroup or 0]
    if _IS_NO_PERSON.match(name) or not _NO_NAME.isdisjoint(name[1:]):
        return None
    return *found.span(found.lastgroup or 0), "name"


def _name_before(text: str, at: int, after: int) -> int | None:
    """Returns where the name that ends at `at`, before a title, begins; None if there is none."""
    # Longest first: 欧阳建国, 张建国, 朱华, 李.
    for length in (4, 3, 2):
        if length <= at and _is_full_name(text, at - length, at, after):
            return at - length
    start = at - 1
    surname = text[start]
    if surname == "某" and start and text[start - 1] in _FIRST:
        return start - 1
    if surname in _CLEAR:
        named = not (start and _TAIL.match(text, start - 1))
    elif surname in _COMMON:
        named = _is_addressed(text, start, after)
    else:
        named = False
    return start if named else None


def _is_full_name(text: str, start: int, end: int, after: int) -> bool:
    """Judges a surname with a given name, before a title that ends at `after`."""
    surname, length = text[start], end - start
    double = text[start : start + 2] in _DOUBLE
    full = length < 4 and surname in _FULL
    given = text[start + 1 + double : end]
    if not (double or full) or not _NO_NAME.isdisjoint(given):
        return False
    if _IS_NO_PERSON.match(text[start:end]):
        return False
    before = text[max(0, start - 4) : start]
    if length == 3 and surname in _CLEAR and _WEAKLY_BEFORE.search(before):
        return True
    # 黄金 and 黄梅 look alike, so a name of two characters that may be a word wants a greeting.
    clear = double or length > 2 or surname in _CLEAR
    greeted = clear or _GREETING.search(before) or _ANSWERED.match(text, after)
    return bool(greeted and (_BEFORE.search(before) or _EARLIER.search(before)))


def _is_addressed(text: str, start: int, after: int) -> bool:
    """Judges a lone surname that may be a word: 高医生, but 血压高医生说; 于医生，您好."""
    surname, before = text[start], text[max(0, start - 6) : start]
    if surname in _VERBS:
        greeted = _GREETING.search(before) and _ADDRESSED.match(text, after)
        answered = _BREAK.search(before) and _ANSWERED.match(text, after)
        placed = surname in _WEAK and _PLACED.search(before) and _FOLLOWED.match(text, after)
        return bool(greeted or answered or placed)
    # A brand of face cream.
    if text[start:after] == "白大夫":
        return False
    return _BEFORE.search(before) is not None


_FAMILY = "".join(sorted(_FULL))
_TWO = "|".join(sorted(_DOUBLE))
_SURE = "".join(sorted(_CLEAR))
_GIVEN = r"[\u4e00-\u9fff]{1,2}"
_ENDS = r"(?=[，。！？；：、,.!?;:（(\s]|$|男|女|先生|教授|主任|医生|医师|说|通知|告诉)"
_AFTER = re.compile(
    rf"(?:[：:]\s?|(?<=[姓户]名)[是为]?\s?|(?<=我叫))"
    rf"(?P<label>(?:{_TWO}|[{_FAMILY}]){_GIVEN}){_ENDS}"
    rf"|(?P<apposed>[{_SURE}]{_GIVEN}){_ENDS}"
    rf"|(?P<sexed>[{_FAMILY}]{_GIVEN})"
    rf"[，,、（(\s]{{0,2}}[男女]性?(?=[，,、。；;（(\s0-9]|$)"
)
_OPENERS = frozenset(f"{_FAMILY}{_TWO}：: 是为")
_SURNAMES = _FIRST | frozenset("某官司慕皇令")
_SOMEBODY = re.compile(
    rf"(?:(?<![^，。！？；：、,.!?;:（(“\"\s者人])[{_FAMILY}]某某?"
    rf"(?=[，,。、：:（(\s男女的先女因于自]|$)"
    rf"|(?<![国君女])[{_SURE}]某某?(?![种些个人处医院项日时地年天物类]))"
)

_OPENING = f"[{''.join(sorted(_OPENERS))}]"
# One of these a text must hold for `names` to find anything.
TRIGGERS = (
    "医[生师]",
    "大夫",
    "老师",
    "主任",
    "教授",
    "[护女]士",
    "先生",
    f"患[者儿]{_OPENING}",
    f"姓名{_OPENING}",
    f"我叫{_OPENING}",
    f"病人{_OPENING}",
    f"系人{_OPENING}",
    f"户名{_OPENING}",
    "某",
)
