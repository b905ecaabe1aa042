"""Privacy: personal data out of a text, a typed placeholder in its place.

The first aim is that nobody can be reached or recognised; the second, just as hard, that no dose,
laboratory value, date or code is touched. So a bare sequence of digits is never enough: each type
wants a checksum, a numbering plan, or a word beside it that says what it is. `DESCRIPTIONS` states
the rule of each type and what it does not catch. Common to all: short service numbers (120, 110,
12320, 10086) stay, because answers send people there; full-width digits are not looked for (the
cleaning makes them half-width before); numbers written in Chinese characters are not caught.

Telephone numbers are judged by phonenumbers (the plan of numbers), identity cards by
stdnum.cn.ric (place, date of birth, check digit), bank cards by stdnum.luhn; all three are
imported only when a text holds a candidate.

The module is long because of its word lists: most of it says what is no name.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

__all__ = ["DESCRIPTIONS", "PLACEHOLDERS", "mask"]

Span = tuple[int, int, str]

PLACEHOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "phone": "[电话]",
        "qq": "[QQ]",
        "wechat": "[微信]",
        "email": "[邮箱]",
        "id_card": "[身份证]",
        "bank_card": "[银行卡]",
        "name": "[姓名]",
    }
)

DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "phone": "mobile, fixed, 400/800 and +-numbers that the numbering plan knows, with their "
        "extension; 7 or 8 local digits only behind a word such as 电话; never 120 or 12320",
        "qq": "5 to 11 digits beside QQ, 扣扣, Q号, 企鹅 or 加我扣; never without such a word",
        "wechat": "an id (or its digits) behind 微信, 薇信, 威信, vx, wx, 加v and the like, "
        "and any wxid_; never without such a word",
        "email": "a mail address, also with blanks around @ or 。 for the full stop",
        "id_card": "18 digits (last may be X) with right check digit, place and date of birth, 15 "
        "digits with place and date; behind 身份证 also with a wrong check digit",
        "bank_card": "16 to 19 digits that pass Luhn and begin as a bank's card does; behind "
        "银行卡, 账号 and the like also those that fail Luhn",
        "name": "a surname, with or without a given name, before 医生, 大夫, 主任, 教授, 护士, "
        "女士 and the like; a full name behind 患者, 姓名 and the like; rare surnames, and names "
        "without such a word, are not caught",
    }
)


def mask(text: str) -> tuple[str, list[str]]:
    """Replaces personal data in `text` by the placeholders of `PLACEHOLDERS`.

    Masking the result again changes nothing.

    Returns:
        The text and the types that were hit, in order of place; when nothing was hit, the very
        same text object and an empty list.
    """
    hits: list[tuple[int, str]] = []
    # A placeholder may be the boundary that a neighbour lacked, so look until nothing is new.
    while spans := _spans(text):
        starts = [start for start, _, _ in spans]
        grown = [0]
        pieces: list[str] = []
        end = 0
        for start, stop, kind in spans:
            pieces += (text[end:start], PLACEHOLDERS[kind])
            grown.append(grown[-1] + len(PLACEHOLDERS[kind]) - (stop - start))
            end = stop
        hits = [(at + grown[bisect_right(starts, at)], kind) for at, kind in hits]
        hits += [(start + grown[i], kind) for i, (start, _, kind) in enumerate(spans)]
        text = "".join([*pieces, text[end:]])
    return text, [kind for _, kind in sorted(hits)]


# Whether a text holds four digits in a row, or a letter of vx or wx, is asked of its shadow, where
# every digit is 0, each such letter w and all else a blank: that costs a tenth of a pattern.
_SHADOW = bytes(
    48 if chr(c).isdigit() and c < 58 else 119 if chr(c) in "vVwW" else 32 for c in range(256)
)
# A run that an identity card, a bank card, QQ or a telephone number could be; a year is none.
_RUN = re.compile(r"[0-9](?:[0-9]{4}|[-0-9 .()（）—–·]{5,}[0-9])")
_XIN = re.compile("信(?<=[微威维徽vV]信)")
_WEI = re.compile("微(?:[xX:：号]|(?<=加微))")
_LATIN = re.compile(r"[vVwW](?:[xX信号:：]|e[iIcC]|(?<=[加+微薇＋➕][vV])|(?<=[加+＋➕] [vV]))")


def _spans(text: str) -> list[Span]:
    """Returns what to mask in `text`, sorted and without overlaps."""
    taken: list[Span] = []
    covered: set[int] = set()
    # The first finder that claims a place keeps it.
    for find in _finders(text):
        for span in find(text):
            place = range(span[0], span[1])
            if covered.isdisjoint(place):
                covered.update(place)
                taken.append(span)
    return sorted(taken)


def _finders(text: str) -> list[Callable[[str], Iterator[Span]]]:
    """Returns the finders that could find something: for most texts none."""
    finders: list[Callable[[str], Iterator[Span]]] = []
    if "@" in text:
        finders.append(_emails)
    shadow = text.encode("ascii", "replace").translate(_SHADOW)
    if b"0000" in shadow and _RUN.search(text):
        finders += [_id_cards, _bank_cards, _qq, _wechat, _phones]
    elif (
        ("信" in text and _XIN.search(text))
        or ("微" in text and _WEI.search(text))
        or "薇" in text
        or (b"w" in shadow and _LATIN.search(text))
    ):
        finders.append(_wechat)
    # One character is found ten times faster than two, so the rarer one of a word is asked first.
    if (
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
        or ("某" in text and _SOMEBODY.search(text))
    ):
        finders.append(_names)
    return finders


# What stands before a number decides as much as the number: this label makes it no one's contact,
_LABEL = re.compile(
    r"(?:准字|文号|批号|编号|编码|代码|病历号?|病案号?|住院号?|门诊号?|就诊卡号?"
    r"|登记号|流水号|检查号|标本号?|样本号?|条形?码|订单号?|快递单?号?|单号|货号|ISBN|ISSN|DOI|PMID|NCT|CAS|专利号?|注册证?号?|许可证?号?|DNA|RNA|定量"
    r"|拷贝数?|载量|计数|大于|小于|高达|[><＞＜≥≤=])[A-Za-z号为是:：.。\s()（）-]{0,6}$"
)
# ... this word makes it a telephone number,
_CALL = re.compile(
    r"(?:电话|热线|座机|手机|传真|联系方式|联系我|号码|拨打|致电|来电|打给我|短信|[Tt][Ee][Ll]|[Pp]hone"
    r"|固话|小灵通|前台|总台|客服|值班室|护士站|咨询[台处]|服务台|药房|办公室|诊室)"
    r"(?![\]])[号码是为:：.。,，\s(（)）“”\"'、/和或微信及QqVv同-]{0,8}$"
)
# ... and this after it makes it a quantity.
_UNIT = re.compile(
    r"\s?(?:[cC]op|拷贝|[iI]?[uU]/|[iI][uU]|[uU]\b|/\s?[mMlLuUμ]|[mMμ][lLgGoOm]|[gG]\b|个|次|元|块|万|亿|倍"
    r"|cell|cfu|CFU|年|岁|天|单位|步|[%％～~×*^]|\.[0-9]|下|遍|片|粒|颗|支|盒|瓶|袋|周|字|篇|斤|公里|米|毫|分钟|秒)"
)
_LATIN_WORD = re.compile(
    r"(?:[Tt][Ee][Ll]|[Pp]hone|[Mm]obile|[Qq]{1,2}|[WwVv][Xx]|\b[VvTtMm])[.:]?$"
)


def _stands_free(text: str, start: int, end: int, called: bool) -> bool:
    """Tells whether the digits at this place are no part of a word, a link or a quantity."""
    before = text[max(0, start - 8) : start]
    last = before[-1:]
    if last and last.isascii() and (last.isalnum() or last in "_=&./"):
        # 1.13912345678 is a decimal, 13812345678/13912345678 are two numbers.
        second = last == "/" and (before[-2:-1].isdigit() or not before[-2:-1].isascii())
        if not second and not _LATIN_WORD.search(before):
            return False
    return called or not _UNIT.match(text, end)


def _behind(label: re.Pattern[str], text: str, start: int, reach: int = 20) -> bool:
    return label.search(text[max(0, start - reach) : start]) is not None


_EMAIL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63} ?@ ?[A-Za-z0-9-]{1,63}(?:[.。][A-Za-z0-9-]{1,63})*"
    r"[.。](?:com|cn|net|org|edu|gov|hk|tw|cc|info|me|io|[A-Za-z]{2,6})(?![A-Za-z0-9])"
)


def _emails(text: str) -> Iterator[Span]:
    for found in _EMAIL.finditer(text):
        yield *found.span(), "email"


_ID_CARD = re.compile(
    r"(?<![0-9A-Za-z.])[1-8][0-9]{5}(?:[ -]?[0-9]){9}"
    r"(?:(?:[ -]?[0-9]){2}[ -]?[0-9Xx])?(?![0-9A-Za-z])"
)
_ID_WORD = re.compile(r"身份证(?!\])[件号码是为:：\s(（]{0,8}$")


def _id_cards(text: str) -> Iterator[Span]:
    for found in _ID_CARD.finditer(text):
        number = re.sub("[ -]", "", found[0]).upper()
        if _behind(_ID_WORD, text, found.start()) or _is_id_card(number):
            yield *found.span(), "id_card"


def _is_id_card(number: str) -> bool:
    """Judges 18 characters, or the 15 (no century, no check digit) of cards from before 1999.

    Not `ric.is_valid`: it wants the county to have existed when the holder was born, but the code
    is that of the first registration, so it refuses real cards.
    """
    from stdnum import exceptions, numdb
    from stdnum.cn import ric

    if len(number) == 15:
        number = f"{number[:6]}19{number[6:]}"
        number += ric.calc_check_digit(number + "0")
    try:
        born = ric.get_birth_date(number)
    except exceptions.ValidationError:
        return False
    known = all(place for _, place in numdb.get("cn/loc").info(number[:6]))
    return known and 1900 <= born.year < 2100 and number[-1] == ric.calc_check_digit(number)


_BANK_CARD = re.compile(r"(?<![0-9A-Za-z.])[3-69][0-9]{3}(?:[ -]?[0-9]){12,15}(?![0-9A-Za-z])")
_BANK_WORD = re.compile(
    r"(?:银行卡?|信用卡|储蓄卡|借记卡|工资卡|[账帐][号户]|开户行?|[工农中建交招][商]?行"
    r"|支付宝|卡号|汇款|打款|转[账帐])(?!\])[^0-9，。！？；\n]{0,8}$"
)
# UnionPay, Visa, Mastercard, JCB; old cards of ICBC (9558) and CCB (436742) have 19 digits.
_ISSUER = re.compile(
    r"62[0-9]{14,17}|(?:4|5[1-5]|35)[0-9]{14,15}|(?:9558|4367)[0-9]{15}|60[0-9]{14,17}"
)


def _bank_cards(text: str) -> Iterator[Span]:
    from stdnum import luhn

    for found in _BANK_CARD.finditer(text):
        number = re.sub("[ -]", "", found[0])
        if _behind(_LABEL, text, found.start()) or _UNIT.match(text, found.end()):
            continue
        if _behind(_BANK_WORD, text, found.start()) or (
            _ISSUER.fullmatch(number) and luhn.is_valid(number)
        ):
            yield *found.span(), "bank_card"


_MOBILE_DIGITS = re.compile(r"1[3-9][0-9]{9}")
_NUMBER = r"[1-9][0-9]{4,10}(?![0-9])|[1-9][0-9]{1,3}(?:[- ][0-9]{2,4}){1,3}(?![0-9])"
_FILL = (
    r"(?:\s|[:：=/、，,“”\"'(（【)）】—_-]|号码?|群|交流|是|为|在线|咨询|联系|客服|我的?|加|同号?|方式|健康|账|帐|"
    r"ID|[iI]d|或者?|和|搜索?|添加|也是|都是|就是|备用|私人|个人|公众|平台"
    r"|详聊|聊聊?|一下|[给您你请发了吗吧呢有这个下面]){0,8}"
)
_QQ_WORD = (
    r"(?:(?<![A-Za-z\[])[Qq]{2}(?![\]A-Za-z糖])|扣扣|[抠蔻秋球]{2}|企鹅"
    r"|(?<![A-Za-z0-9酶])[Qq](?=[号群:：是]|\s?[1-9][0-9]{5})"
    r"|(?<=[加我的系])扣(?=[号:：\s]{0,2}[1-9][0-9]{5}))"
)
_WECHAT_WORD = (
    r"(?:(?<!\[)[微薇威维徽](?:信|[xX](?:in)?)(?!\])|[加➕+＋][微薇]|[vV][信xX]|(?<![A-Za-z])[wW][xX]"
    r"|[wW]ei[xX]in|[wW]e[cC]hat|(?<=[加➕+＋])\s?[vV](?=[号:：\s]|[1-9][0-9]{5})|微号|[薇微][:：]"
    r"|(?<![A-Za-z0-9])[vV]号?[:：])"
)
# With a longer number or an id that is no word, more may stand between: 您的QQ多少？我的123456789.
_LOOSE = r"[^0-9A-Za-z\n@\[\]]{0,10}?"
_QQ = re.compile(
    rf"{_QQ_WORD}(?:(?:{_FILL})(?:微信)?(?:{_FILL})(?P<id>{_NUMBER})"
    rf"|{_LOOSE}(?P<far>[1-9][0-9]{{5,10}}(?![0-9])))"
)
_QQ_BEFORE = re.compile(
    r"(?<![0-9A-Za-z.])(?P<id>[1-9][0-9]{4,10})\s?(?:[(（，,]\s?|是?我?的?|这?个?)"
    r"(?:[Qq]{2}|扣扣)(?![A-Za-z\]]|号?[:：]?\s?[0-9])"
)
_WECHAT = re.compile(
    r"(?:(?<![A-Za-z0-9])(?P<own>[wW][xX][iI][dD]_[A-Za-z0-9]{5,30})"
    rf"|{_WECHAT_WORD}(?:(?:{_FILL})(?:[Qq]{{2}})?(?:{_FILL})"
    r"(?P<id>[A-Za-z][-_A-Za-z0-9]{5,19}|[1-9][0-9]{4,10})"
    rf"|{_LOOSE}(?P<far>(?=[a-z]+[-_0-9])[-_A-Za-z0-9]{{6,20}})))(?![-_A-Za-z0-9@])"
)
_NO_ID = frozenset(["wechat", "weixin", "android", "iphone", "windows", "undefined"])
_NEXT = re.compile(r"(?:\s?[、/,，;；或和]\s?|\s)(?P<id>[1-9][0-9]{4,10})(?![0-9])")


def _qq(text: str) -> Iterator[Span]:
    for pattern in (_QQ, _QQ_BEFORE):
        for found in pattern.finditer(text):
            start, end = found.span(found.lastgroup or 0)
            # One word may stand before several numbers.
            while _is_qq(text, start, end):
                yield start, end, "qq"
                following = _NEXT.match(text, end)
                if not following or pattern is _QQ_BEFORE:
                    break
                start, end = following.span("id")


def _is_qq(text: str, start: int, end: int) -> bool:
    number = re.sub("[- ]", "", text[start:end])
    if not 5 <= len(number) <= 11 or _MOBILE_DIGITS.fullmatch(number):
        return False
    return not _UNIT.match(text, end) and not _behind(_LABEL, text, start)


def _wechat(text: str) -> Iterator[Span]:
    for found in _WECHAT.finditer(text):
        group = found.lastgroup or 0
        known = found[group]
        if known.lower() in _NO_ID or _MOBILE_DIGITS.fullmatch(known):
            continue
        if not (known.isdigit() and _UNIT.match(text, found.end(group))):
            yield *found.span(group), "wechat"


_GAP = r"[- \t—–]{0,3}"
_EXTENSION = (
    r"(?:\s?(?:转|分机号?|[eE]xt\.?)\s?[:：]?\s?[0-9]{1,6}(?!号?键)|-[0-9]{2,5}"
    r"|(?:/[0-9]{1,2})+)?(?![0-9])"
)
_CHINA = rf"(?:[(（]?(?:\+|00)?86[)）]?{_GAP})?"
_PHONE = re.compile(
    rf"(?<![0-9])(?:{_CHINA}0?(?P<mobile>1[3-9][0-9](?P<gap>[-. \t·—–]{{0,3}})"
    rf"(?:[0-9]{{4}}(?P=gap)[0-9]{{4}}"
    rf"|[0-9]{{3}}(?P=gap)[0-9]{{5}}))(?![0-9])"
    rf"|{_CHINA}(?P<fixed>[(（]?0[1-9][0-9]{{1,2}}[)）]?{_GAP}"
    rf"[2-9][0-9]{{2,3}}[- —–]?[0-9]{{4}}(?![0-9]))"
    rf"{_EXTENSION}|{_CHINA}(?P<service>[48]00(?:{_GAP}[0-9]){{7}}(?![0-9])){_EXTENSION}"
    rf"|(?P<abroad>(?:\+|00)[1-9](?:[- ()]{{0,2}}[0-9]){{7,13}})(?![0-9])"
    rf"|(?P<spaced>1(?:[- ]{{0,2}}[0-9]){{10}})(?![0-9])"
    rf"|(?P<local>[2-9][0-9]{{2,3}}[- —–]?[0-9]{{4}}(?![0-9])){_EXTENSION})"
)
_LOCAL = re.compile(
    rf"(?:\s?[、/,，;；或和]\s?|\s)(?P<local>[2-9][0-9]{{2,3}}-?[0-9]{{4}}(?![0-9])){_EXTENSION}"
)


def _phones(text: str) -> Iterator[Span]:
    at = 0
    while found := _PHONE.search(text, at):
        start, end = found.span()
        called = _behind(_CALL, text, start)
        labelled = not called and _behind(_LABEL, text, start)
        if labelled or not _stands_free(text, start, end, called) or not _is_phone(found, called):
            # 1 4001234567: what is no number may hold one.
            at = start + 1
            continue
        yield start, end, "phone"
        # 010-88886666、88886667
        while (more := _LOCAL.match(text, end)) and not _UNIT.match(text, more.end()):
            yield more.start("local"), more.end(), "phone"
            end = more.end()
        at = end


def _is_phone(found: re.Match[str], called: bool) -> bool:
    """Judges a candidate; `called` says that a word such as 电话 stands before it."""
    form = found.lastgroup
    if form in {"local", "spaced"} or (called and form == "mobile"):
        return called
    # Round numbers are counts: 4000000000, 15000000000.
    if found[0].endswith("00000"):
        return False
    import phonenumbers

    number = found[form or 0] if form != "abroad" else re.sub("^00", "+", found["abroad"])
    try:
        parsed = phonenumbers.parse(number, "CN")
    except phonenumbers.NumberParseException:
        return False
    return bool(phonenumbers.is_valid_number(parsed))


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
_WEAKLY_BEFORE = re.compile("[在让被对把为和与及因的给到去跟向请位名]$")
_GREETING = re.compile(r"(?:你好|您好|谢谢|感谢|[尊敬亲][敬爱]的|麻烦|请问)[，,！!。：: ]{0,2}$")
_BREAK = re.compile(r"(?:^|[，。！？；：、,.!?;:\n]|找|姓|约|挂)$")
_PLACED = re.compile(r"(?:^|科|医院|[。！？；.!?;\n])$")
_FOLLOWED = re.compile("[，,：:！!。？? 您你的说]|$")
_ANSWERED = re.compile(
    r"[，,：:！! ]{0,2}(?:您好|你好|您|好[，,！!]|上午好|下午好|早上好|晚上好|新年好|辛苦)"
)
_ADDRESSED = re.compile(r"[，,！!。？?：: ]|$|我|请问|帮|麻烦")


def _names(text: str) -> Iterator[Span]:
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
    return bool(greeted and _BEFORE.search(before))


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
