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

Names of people are found by `medqa.data.names`.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from medqa.data.names import TRIGGERS as NAME_TRIGGERS
from medqa.data.names import Span, may_hold_names, names

__all__ = ["DESCRIPTIONS", "PLACEHOLDERS", "TRIGGERS", "mask"]

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


# One of these a text must hold for `mask` to find anything.
TRIGGERS = (
    "@",
    "[微威维徽vV]信",
    "微[xX:：号]",
    "加微",
    "薇",
    "[vVwW][xX信号:：]",
    "[vVwW]e[iIcC]",
    "[加+微薇＋➕][vV]",
    "[加+＋➕] [vV]",
    "[0-9][0-9][0-9][0-9]",
    *NAME_TRIGGERS,
)


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
        finders += [_id_cards, _bank_cards]
        finders += [_qq] if _QQ_HINT.search(text) else []
        finders += [_wechat] if _WECHAT_HINT.search(text) else []
        finders.append(_phones)
    elif (
        ("信" in text and _XIN.search(text))
        or ("微" in text and _WEI.search(text))
        or "薇" in text
        or (b"w" in shadow and _LATIN.search(text))
    ):
        finders.append(_wechat)
    if may_hold_names(text):
        finders.append(names)
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
    r"[1-8](?<![0-9A-Za-z.].)[0-9]{5}(?:[ -]?[0-9]){9}"
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


_BANK_CARD = re.compile(r"[3-69](?<![0-9A-Za-z.].)[0-9]{3}(?:[ -]?[0-9]){12,15}(?![0-9A-Za-z])")
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


# What each of these words holds one of.
_QQ_HINT = re.compile("[Qq扣抠蔻秋球鹅]")
_WECHAT_HINT = re.compile("[微薇威维徽vVwW]")


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
_PHONE_FIRST = re.compile(r"[0-9(（+]")
_LOCAL = re.compile(
    rf"(?:\s?[、/,，;；或和]\s?|\s)(?P<local>[2-9][0-9]{{2,3}}-?[0-9]{{4}}(?![0-9])){_EXTENSION}"
)


def _phones(text: str) -> Iterator[Span]:
    at = 0
    # A set of characters is passed over ten times as quickly as so many alternatives.
    while begun := _PHONE_FIRST.search(text, at):
        found = _PHONE.match(text, begun.start())
        if not found:
            at = begun.end()
            continue
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
