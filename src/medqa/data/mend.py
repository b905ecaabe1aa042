"""Rules that mend one text. Each takes and returns a text and is switched by its name.

None changes a number, a unit or a dose, none touches traditional characters (裡, 藥 and 檢查 stay:
a dialect is not dirt), and none leaves a text without a word: one that is nothing but a greeting
stays a greeting. The module is long because each rule stands beside its patterns.
"""

import html
import re

from medqa.data.triggers import EDGE, UNPRINTABLE, woken_by

HAN = "\u3400-\u9fff"
ENDS = "。！？…!?；\n"  # after these a sentence may begin

# --- characters -----------------------------------------------------------------------------

_ENTITY = re.compile(
    r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});|&nbsp|&65533;"
)
_BEHEADED = re.compile("(?<![A-Za-z&])(?:nbsp|[nm]dash|[lr][ds]quo|quot|middot|hellip);")
_ZERO = r"\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
# A row of tags at once: what stands before the first and behind the last may be digits.
_DROPPED_TAG = re.compile(
    rf"(?:(?:<!--.{{0,5000}}?-->|<(script|style)\b[^<>]*>.{{0,5000}}?</\1\s*>)[{_ZERO}]*)+",
    re.I | re.S,
)
_SUPERSCRIPT = re.compile(r"(?<=\d)<sup>\s*(?=[-+]?\d)", re.I)
_BREAK_TAG = re.compile(
    r"<\s*/?\s*(?:br|p|div|li|ul|ol|tr|table|tbody|h[1-6]|hr)(?:\s[^<>]*)?/?>", re.I
)
_TAG = re.compile(
    r"(?:<\s*/?\s*(?:a|abbr|b|big|blockquote|center|code|dd|dl|dt|em|font|i|img|input|label|o:p|pre|"
    r"s|small|span|strong|sub|sup|td|th|thead|tt|u)(?:\s[^<>]*)?/?>"
    rf"[{_ZERO}]*)+",
    re.I,
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ue000-\uf8ff]+")
_ZERO_WIDTH = re.compile(f"[{_ZERO}]+")
_FULL_WIDTH = re.compile(r"[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]")
_FULL_WIDTH_SIGN = re.compile(r"(?<=[0-9A-Za-zα-ω])[％．／－＋＊](?![％．／－＋＊])")
_HALVES = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_LINE_BREAK = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r" ?\n[ \n]*")
_BLANK_BEFORE = re.compile(r" (?=[，。！？；：、（）《》【】])")
_BLANK_AFTER = re.compile(r"([，。！？；：、（）《》【】]) ")


@woken_by("&", "[a-z];")
def html_entities(text: str) -> str:
    """HTML entities become their characters: ``血压&lt;90`` → ``血压<90``, ``&amp;nbsp;`` → blank.

    Only those that end in a semicolon (and ``&nbsp``): HTML's own rule would also turn
    ``&ampoule`` into ``&oule``. Real: ``还可以去药店买&quot;思密达&quot;``, and the broken
    ``是来大姨妈了&65533;`` and ``建议食用2ndash;3种``.
    """
    while "&" in text:
        plain = _ENTITY.sub(_character, text)
        if plain == text:
            break
        text = plain
    return _BEHEADED.sub(_character, text) if ";" in text else text


@woken_by("<")
def html_tags(text: str) -> str:
    """HTML tags go, ``<br>`` and ``<p>`` become line breaks; ``血压<90`` and ``<18岁`` stay.

    ``10<sup>9</sup>/L`` becomes ``10^9/L``, and a tag between two digits a blank. Real:
    ``指导意见：<br>白癜风一般比较难治愈的``.
    """
    if "<" not in text or ">" not in text:
        return text
    text = _SUPERSCRIPT.sub("^", _DROPPED_TAG.sub(_blank_between_digits, text))
    return _TAG.sub(_blank_between_digits, _BREAK_TAG.sub("\n", text))


@woken_by(UNPRINTABLE, "\ufffd")
def invisible(text: str) -> str:
    """Control characters, zero-width ones and replacement characters (U+FFFD) go.

    A control character between two digits becomes a blank: ``5`` NUL ``10`` must not read 510.
    """
    if text.isprintable() and "\ufffd" not in text:
        return text
    text = _ZERO_WIDTH.sub("", text)
    return _CONTROL.sub(_blank_between_digits, text)


@woken_by("[０-９Ａ-Ｚａ-ｚ]", "[0-9A-Za-zα-ω][％．／－＋＊]")
def half_width(text: str) -> str:
    """Full-width letters and digits become half-width: ``维生素Ｅ`` → ``维生素E``.

    So do ``％．／－＋＊`` right after one or a Greek letter (``16．2％`` → ``16.2%``, ``β－HCG`` →
    ``β-HCG``); Chinese punctuation stays.
    """
    text = _FULL_WIDTH.sub(_half, text)
    if (
        "％" not in text
        and "．" not in text
        and "／" not in text
        and not ("－" in text or "＋" in text or "＊" in text)
    ):
        return text
    return _FULL_WIDTH_SIGN.sub(_half, text)


@woken_by(UNPRINTABLE, " ")
def whitespace(text: str) -> str:
    """Each run of blanks becomes one, empty lines go, and so do blanks beside ，。：（）.

    Real: ``病情分析： 你好`` → ``病情分析：你好``.
    """
    if not text.isprintable():
        text = _LINE_BREAK.sub("\n", text)
    elif " " not in text:
        return text
    text = _BLANKS.sub(" ", text)
    if "\n" in text:
        text = _BLANK_LINES.sub("\n", text)
    if " " in text:
        text = _BLANK_AFTER.sub(r"\1", _BLANK_BEFORE.sub("", text))
    return text.strip()


# --- punctuation ----------------------------------------------------------------------------

_BESIDE_HAN = re.compile(
    rf"[,;:!?](?:(?<=[{HAN}）》】”’][,;:!?]) ?(?![,;:!?/])|(?<![,;:!?].) ?(?=[{HAN}（《【“]))"
)
_POINT = re.compile(rf"[.．](?<=[{HAN}）》】”][.．])(?![0-9a-z.．])")
_BRACKETS = re.compile(rf"\(([^()\n]{{0,60}}[{HAN}][^()\n]{{0,60}})\)")
_PAIR = re.compile(r"[(（]([^()（）\n]{0,60})[)）]")
_BEHIND_HAN = re.compile(f"[{HAN}，。；：！？] ?$")
_UNPAIRED = re.compile(rf"\((?<=[{HAN}，。；：！？]\()(?=[{HAN}0-9])(?![^()（）\n]*[)）])")
_BEFORE_HAN = re.compile(f" ?[{HAN}]")
# A point that may end a sentence, and what stands before it where it does: 327.1.请, 高压160.服药,
# 0-30.请, 18mmol/l.并发, a blank; or a Han character where a date or the next item of a list
# follows it, but not 每次.5.
_POINT_BEFORE = re.compile(
    rf"\.(?:(?P<han>[{HAN}])|(?=(?:19|20)\d\d年|1?\d月\d{{1,2}}[日号]|[1-9]\d岁|"
    rf"[2-9][.、] ?[{HAN}]))"
)
_ENDED = re.compile(
    rf"(?:[{HAN}：:](?:\d{{1,4}}\.\d{{1,3}}|\d{{3}})|\d-\d{{1,3}}|\d ?(?:mm|cm|mg|ml|mL|kg|g|L|"
    r"mmol/[lL]|mmHg|I?[gU]/L|IU|%|℃)|[^\d\s] )$"
)
_NO_AMOUNT = re.compile(f"[{HAN}）](?<![次服用量约为共各含加至到即是日每])$")
# Or one before an item without a mark, 1避免….2勿张口, or with a comma, where the item beside it is
# in the text too: 阿莫西林.5口服 and .5，饭后 are doses, and so is what a measure follows.
_MEASURES = (
    "个片粒次天日周月年岁克毫微升包瓶支袋丸枚滴勺匙杯碗小分秒点倍度斤公千米厘百万亿元块只条颗盒针贴剂单位"
    "国两份种级期到至或几半一二三四五六七八九十"
)
_ITEM = re.compile(rf"\.(?<=[{HAN}）]\.)(?=([1-9])(，?) ?(?![{_MEASURES}])[{HAN}])")
_WIDE = str.maketrans(",;:!?.．", "，；：！？。。")
_STOP = "[，。！？；：、…,;:!?.．]"
_REPEATED = re.compile(f"{_STOP}(?:{_STOP}| {_STOP})(?: ?{_STOP})*")
_WAVES = re.compile(r"[~～]{2,}")
_WAVE_BESIDE_END = re.compile(
    rf"[~～](?:(?=[。！？])(?<=[^\d~～].)|\Z(?<=[{HAN}].)|(?<=[。！？].)(?!\d))"
)
_DASHES = re.compile(
    rf"(?<=[\d%]) ?--+ ?(?=\d)|(?<=[{HAN}])--+(?=[{HAN}])|(?<=[。！？])--+(?=[{HAN}])"
)
_STARS = re.compile(r"\*\*+(?![\d*])(?<!\d\*\*)")
_DOTS = re.compile("··+|``+")
_TWO_POINTS = re.compile(rf"\.\.(?<=\d\.\.)(?=[{HAN}])")
_STRAY = re.compile(r"^(?:[，。、；：！？,;:!?】）》`]|\.(?!\d))+[^\S\n]*", re.M)
_STRAY_END = re.compile(
    rf"(?<=[。！？吗呢呀啊么])[“‘（【《(\[]+$|(?<=[{HAN}。！？])[/／\[]$|(?<=[。！？])[—-]+$"
)
_UNDEFINED = re.compile(rf"(?<=[{HAN}，。！？：、；])(?:undefined)+$")
_UNOPENED = {"》": "《", "】": "【"}
_PAIRS = (("（", "）"), ("(", ")"), ("【", "】"), ("《", "》"), ("“", "”"), ("‘", "’"))
_HOLLOW = re.compile(
    "|".join(
        rf"{re.escape(opened)}(?<![A-Za-z].) ?{re.escape(closed)}" for opened, closed in _PAIRS
    )
)
_STRAY_FIRST = frozenset("，。、；：！？,;:!?.】）》`")
_LAST_MARKS = "“‘（【《([/／—-"  # of which `_STRAY_END` takes some
_ESCAPED_QUOTES = re.compile(r'(?:\\"+)+|"(?="[^"])(?!""")')


@woken_by(
    "[()]",
    "[,;:!?]",
    ".[^0-9a-z.．]",
    ".[0-9][0-9月]",
    ".[2-9][.、]",
    "[^0-9].[1-9][^0-9.]",
    "．",
)
def han_punctuation(text: str) -> str:
    """Half-width punctuation beside Han characters becomes full-width.

    Real: ``适当服药,多休息.`` → ``适当服药，多休息。``. Between digits and in Latin text it stays:
    ``1:1000``, ``12:30``, ``3.5``, ``1,000``. Brackets change where Han characters stand inside
    or beside them, behind their punctuation, where their two halves differ, or one is missing.
    """
    if "(" in text or ")" in text:
        text = _UNPAIRED.sub("（", _brackets(text))
    if "," in text or ":" in text or ";" in text or "?" in text or "!" in text:
        text = _BESIDE_HAN.sub(_wide, text)
    if "." in text or "．" in text:
        text = _ITEM.sub(_itemised, _POINT.sub("。", _POINT_BEFORE.sub(_pointed, text)))
    return text


@woken_by(
    f"{_STOP}{_STOP}",
    f"{_STOP} {_STOP}",
    "[~～][~～]",
    "[~～][。！？]",
    "[。！？][~～]",
    f"[^~～][~～]{EDGE}",
    "--",
    "**",
    "··",
    "``",
)
def repeated_punctuation(text: str) -> str:
    """Runs of punctuation become one mark: ``！！！`` → ``！``, ``。，`` → ``。``; ``……`` stays.

    Real: ``可以治疗的.。建议``, ``怎么办？？？？``, ``服用一段时间就会好的。,``, ``怎么射精~！``,
    ``均正常后2--3个月`` → ``2-3个月``, ``化合物--组织胺`` → ``——``, ``急```口干`` → ``……``,
    ``***特别提示***`` → ``*特别提示*``.
    """
    if "--" in text:
        text = _DASHES.sub(_one_dash, text)
    if "**" in text:
        text = _STARS.sub("*", text)
    if "··" in text or "``" in text:
        text = _DOTS.sub("……", text)
    if ".." in text:
        text = _TWO_POINTS.sub(".", text)
    text = _REPEATED.sub(_one_mark, text)
    # A wave that goes may bring two marks together, and they a wave beside one: ~，。
    while ("~" in text or "～" in text) and (
        mended := _WAVE_BESIDE_END.sub("", _WAVES.sub("～", text))
    ) != text:
        text = _REPEATED.sub(_one_mark, mended)
    return text


@woken_by(
    '\\"',
    '""',
    "\n",
    *(f"{mark}{EDGE}" for mark in (*_LAST_MARKS, *_UNOPENED)),
    f"ned{EDGE}",
    *(f"{opened}{blank}{closed}" for opened, closed in _PAIRS for blank in ("", " ")),
    first=_STRAY_FIRST,
)
def stray_punctuation(text: str) -> str:
    r"""Punctuation that begins a text or a line goes, and half a pair left at the very end.

    Real: ``。买点人参健脾丸``, ``我为您详细解答。‘``, ``能动手术吗》``, ``提高抵抗力／``,
    brackets with nothing in them: ``会不会转移？（）``, what a page's script wrote for nothing:
    ``注意加强营养，undefined``, and escaped quotes: ``\""您好``.
    """
    if '\\"' in text or '""' in text:
        text = _ESCAPED_QUOTES.sub(_blank_between_digits, text)
    if text[:1] in _STRAY_FIRST or "\n" in text:
        text = unless_empty(text, _STRAY.sub("", text))
    if text.endswith(tuple(_LAST_MARKS)):
        text = unless_empty(text, _STRAY_END.sub("", text))
    if text.endswith("undefined"):
        text = unless_empty(text, _UNDEFINED.sub("", text))
    opened = _UNOPENED.get(text[-1:])
    if opened and opened not in text:
        text = unless_empty(text, text[:-1])
    return unless_empty(text, _HOLLOW.sub(_blank_between_digits, text))


def unless_empty(text: str, mended: str) -> str:
    """Returns `mended`, or `text` where no letter, digit or Han character would be left."""
    return mended if any(map(str.isalnum, mended)) else text


def _character(entity: re.Match[str]) -> str:
    name = entity[0].removeprefix("&")
    return "\ufffd" if name == "65533;" else html.unescape(f"&{name}")


def _blank_between_digits(found: re.Match[str]) -> str:
    # Past what goes after this: a tag may stand beside zero-width characters.
    before = _ZERO_WIDTH.sub("", found.string[max(0, found.start() - 9) : found.start()])[-1:]
    after = _ZERO_WIDTH.sub("", found.string[found.end() : found.end() + 9])[:1]
    return " " if before.isdigit() and after.isdigit() else ""


def _brackets(text: str) -> str:
    """Returns `text` with its brackets mended, those within others too: ``((轻))``."""
    wider = _BRACKETS.sub(r"（\1）", _PAIR.sub(_pair, text))
    return text if wider == text else _brackets(wider)


def _pair(found: re.Match[str]) -> str:
    """Returns brackets full-width beside a Han character, or where their halves differ."""
    pair, text = found[0], found.string
    mixed = (pair[0] == "(") != (pair[-1] == ")")
    if mixed or (
        pair[0] == "("
        and found[1]
        and (
            _BEHIND_HAN.search(text, max(0, found.start() - 2), found.start())
            or _BEFORE_HAN.match(text, found.end())
        )
    ):
        return f"（{found[1]}）"
    return pair


def _pointed(found: re.Match[str]) -> str:
    """Returns what follows a point behind ``。`` where it ends a sentence."""
    han = found["han"] or ""
    ends = _ENDED if han else _NO_AMOUNT
    ended = ends.search(found.string, max(0, found.start() - 10), found.start())
    return f"。{han}" if ended else found[0]


def _itemised(found: re.Match[str]) -> str:
    """Returns ``。`` where a point stands before the next item of a list, else the point."""
    text, start, number = found.string, found.start(), int(found[1])
    if not _NO_AMOUNT.search(text, max(0, start - 2), start):
        return "."
    item = rf"(?:^|[。！？；：，.、\n]){{}}{found[2]} ?(?![{_MEASURES}])[{HAN}]"
    before, after = re.compile(item.format(number - 1)), re.compile(item.format(number + 1))
    beside = before.search(text, max(0, start - 400), start) or after.search(
        text, start, start + 400
    )
    return "。" if beside else "."


def _half(found: re.Match[str]) -> str:
    return found[0].translate(_HALVES)


def _wide(found: re.Match[str]) -> str:
    return found[0].strip(" ").translate(_WIDE)


def _one_mark(found: re.Match[str]) -> str:
    """Returns the one mark that a run of marks stands for."""
    run, text = found[0], found.string
    before = text[max(0, found.start() - 1) : found.start()]
    if run[-1] == "." and text[found.end() : found.end() + 1].isdigit():  # that of .5mg
        rest = run[:-1].rstrip()
        return (rest if len(rest) < 2 else _mark_of(rest, before)) + run[len(rest) :]
    return _mark_of(run, before)


def _one_dash(found: re.Match[str]) -> str:
    """Returns the sign of a range, a dash between words, or nothing behind a sentence."""
    before = found.string[found.start() - 1]
    if before in "。！？":
        return ""
    return "——" if _is_han(before) else "-"


def _mark_of(run: str, before: str) -> str:
    """Returns the one mark for a run of at least two after the character `before`."""
    run = run.replace("．", ".")
    if run.isascii() and not _is_han(before):
        return run  # Latin text, numbers
    for mark, narrow in ("？", "?"), ("！", "!"), ("……", "..."), ("……", "…"), ("。", "."):
        if mark in run or narrow in run:
            return mark
    for mark, narrow in ("；", ";"), ("：", ":"), ("，", ","):
        if mark in run or narrow in run:
            return mark
    return "、"


def _is_han(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff" or char in {"）", "》", "”"}
