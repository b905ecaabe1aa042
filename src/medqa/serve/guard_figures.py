"""Figures in a folded question: temperature, age, blood pressure and what else a rule compares."""

import re
from collections.abc import Callable, Mapping

_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "半": 0.5}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_N = r"(\d{1,4}(?:\.\d{1,2})?|[零〇一二两三四五六七八九十百千]{1,6}|半)"
_CHILD = (
    r"(?:宝宝|宝贝|婴儿|新生儿|孩子|小孩|娃娃|娃|崽|儿子|女儿|闺女|外孙女?|孙子|孙女|老二|老大"
    r"|妹妹|弟弟|bb|宝)"
)


def number(text: str) -> float:
    """Returns the value of ``39.5``, ``四十`` or ``一百八`` (180, as it is spoken)."""
    if text[0].isdigit():
        return float(text)
    total, last, unit = 0.0, 0.0, 1
    for character in text:
        if character in _UNITS:
            unit = _UNITS[character]
            total += (last or 1) * unit
            last = 0.0
        elif character in "零〇":
            last, unit = 0.0, 1
        else:
            last = _DIGITS[character]
    return total + last * (unit // 10 if unit >= 100 and text[-1] not in _UNITS else 1)


def _all(*patterns: str) -> Callable[[str], list[re.Match[str]]]:
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda text: [match for pattern in compiled for match in pattern.finditer(text)]


_CELSIUS = _all(
    rf"{_N}(?:°c|℃|°|度|c\b)(半|{_N}(?![\d个天小多次点]))?",
    rf"(?:体温|烧到了?|烧|发热|高烧|发烧|温度)[:是为有到了都快超过最高]{{0,4}}{_N}()(?![\d度./个天小多次点周月岁年])",
    r"(?<![\d./])(3[5-9]\.\d|4[0-2]\.\d)(?![\d%/])()",
    r"\b(3[5-9](?:\.\d)?|4[0-2](?:\.\d)?) ?(?:degrees?|celsius|c\b)()",
    r"\b(?:fever|temp|temperature)\b[a-z ]{0,14}(3[5-9](?:\.\d)?|4[0-2](?:\.\d)?)\b()",
)
_FAHRENHEIT = _all(
    r"\b(9[5-9](?:\.\d)?|10[0-8](?:\.\d)?) ?(?:°? ?f\b|degrees?|fahrenheit|度)",
    r"\b(?:fever|temp|temperature)\b[a-z ]{0,14}(10[0-8](?:\.\d)?)\b",
)


def _temperatures(text: str) -> list[float]:
    found = []
    for match in _CELSIUS(text):
        value, rest = number(match[1]), match[2] or ""
        if value == int(value) and value >= 35 and rest:
            tail = 5 if rest == "半" else number(rest)
            value += tail / 10 if tail < 10 else tail / 100
        found.append(value)
    found += [(float(match[1]) - 32) / 1.8 for match in _FAHRENHEIT(text)]
    return [value for value in found if 30 <= value <= 45]


_MONTHS = _all(
    rf"(?<!孕)(?<!怀)(?<!怀了)(?<!个){_N}个?半?多?月零?{_N}?天?(?:大|龄|的?{_CHILD})",
    rf"{_CHILD}(?:才|刚|刚刚|现在|今年|已经|快|不到|还不到|满|未满|,)*{_N}个?半?多?月(?!前|以前|来|没)",
    rf"(?:不到|未满|才|刚满|刚){_N}个?多?月(?!前)(?=.{{0,8}}{_CHILD})",
)
_WEEKS_OLD = _all(r"(\d{1,2}|[a-z]{3,5})[ -]?(days?|weeks?|months?|years?)[ -]?olds?\b")
_DAYS = _all(
    rf"(?:出生|生下来|生后|落地)(?:才|刚|已经|第)*{_N}(?:多?天|日)",
    rf"{_CHILD}(?:才|刚|刚刚|现在|满|出生|,)+{_N}多?天(?!前|没)",
    rf"{_N}多?天(?:大|的{_CHILD})",
)
_YEARS = _all(rf"{_N}(周?岁)(半)?")
_WORDS = {
    w: n
    for n, w in enumerate(
        [
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
        ],
        start=1,
    )
}
_PER_MONTH = {"d": 1 / 30, "w": 7 / 30, "m": 1.0, "y": 12.0}
_NEWBORN = re.compile(r"新生儿|刚出生|刚满月|没满月|未满月|不满月|还没满月|newborn")


def _ages(text: str) -> list[float]:
    """Returns ages in months."""
    found = [number(match[1]) for match in _MONTHS(text)]
    found += [number(match[1]) / 30 for match in _DAYS(text)]
    found += [number(match[1]) * 12 for match in _YEARS(text)]
    for match in _WEEKS_OLD(text):
        count = _WORDS.get(match[1]) or (int(match[1]) if match[1].isdigit() else None)
        if count is not None:
            found.append(count * _PER_MONTH[match[2][0]])
    return found + [0.5] * bool(_NEWBORN.search(text))


_GESTATION = _all(
    rf"(?:怀孕|孕期|孕|怀了?|妊娠)(?:了|已经|快|大概|差不多|第|满)*{_N}(?:个?多?(月)|(?:多|\+\d)?周)",
    rf"{_N}(?:个?多?(月)|周)(?:多|的)?(?:身孕|孕妇|孕)",
    rf"{_N}()周(?=[^。;!?]{{0,10}}(?:羊水|胎动|宫缩|破水|见红))",
    r"(?:孕晚期|孕后期|临产|待产|快生了)()(?P<late>)",
    r"\b(\d{1,2})(?: |-)(?:weeks?|wks?)()(?: |-)pregnant",
    r"\bpregnant[a-z ,]{0,12}?(\d{1,2})() ?(?:weeks?|wks?)\b",
)


def _gestation(text: str) -> list[float]:
    """Returns weeks of pregnancy."""
    return [number(m[1]) * (4.3 if m[2] else 1) if m[1] else 30 for m in _GESTATION(text)]


def _plain(low: float, high: float, *patterns: str) -> Callable[[str], list[float]]:
    search = _all(*patterns)
    return lambda text: [v for m in search(text) if low <= (v := number(m[1])) <= high]


MEASURES: Mapping[str, Callable[[str], list[float]]] = {
    "体温": _temperatures,  # °C
    "月龄": _ages,  # months
    "孕周": _gestation,
    "收缩压": _plain(  # mmHg
        50,
        300,
        r"(?<![\d./])(\d{2,3}) ?/ ?\d{2,3}(?![\d/.])",
        rf"(?:高压|收缩压|血压)[^,。;!?\d零一二两三四五六七八九十百]{{0,6}}{_N}(?![\d.])",
        r"\b(?:bp|blood pressure)\b[a-z ]{0,8}(\d{2,3})\b",
    ),
    "舒张压": _plain(
        30,
        200,
        r"(?<![\d./])\d{2,3} ?/ ?(\d{2,3})(?![\d/.])",
        rf"(?:低压|舒张压)[^,。;!?\d零一二两三四五六七八九十百]{{0,6}}{_N}(?![\d.])",
    ),
    "血氧": _plain(  # %
        40,
        100,
        rf"(?:血氧饱?和?度?|氧饱和度?|spo2|sao2)(?:[^,。;!?\d零一二两三四五六七八九十百]{{0,6}}|百分之){_N}",
        r"\b(?:spo2|saturation|oxygen|o2)\b[a-z0-9 ]{0,14}?(\d{2})\b ?%?",
    ),
    "血糖": _plain(  # mmol/L
        0.5,
        60,
        rf"血糖[^,。;!?\d零一二两三四五六七八九十百]{{0,6}}{_N}",
    ),
    "心率": _plain(  # per minute
        15,
        300,
        rf"(?:心率|心跳|脉搏|脉率)[^,。;!?\d]{{0,8}}?{_N}(?=次|下|多|[,。;!? ]|$)",
        rf"(?:1|一)分钟(?:跳|心跳|有|了|到)*{_N}(?:多)?[次下]",
        r"\b(?:heart rate|pulse)\b[a-z ]{0,8}(\d{2,3})\b",
    ),
    "片数": _plain(  # tablets at once
        1,
        2000,
        rf"{_N}(?:几|多)?(?:片|粒|颗|丸)",
        r"\b(\d{1,3}) (?:[a-z]+ )?(?:tablets?|pills?|capsules?)\b",
    ),
}
"""What a rule can compare with a number: name to all values that a folded text gives."""
