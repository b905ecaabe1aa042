"""Whether a text names one thing as being another, from the words between and after the two."""

import re
from collections.abc import Sequence

from medqa.compare.spelling import Span


def is_named(text: str, one: Span, other: Span, names: Sequence[Span]) -> bool:
    """Says whether the words between and after two names make them the same.

    Args:
        text: The folded text.
        one: Where one name stands.
        other: Where the other stands, before or after it.
        names: Where names stand: a link is that of the name next before it.
    """
    if one > other:
        one, other = other, one
    middle, rest = text[one[1] : other[0]], text[other[1] : other[1] + 24]
    if one[1] > other[0] or len(middle) > 60 or _SENTENCE.search(middle):
        return False
    if _BRACKET.fullmatch(middle) and _NAME_END.match(rest):
        return True
    if middle in _AND and _SAME.match(rest):
        return True
    if _IS.fullmatch(middle) and not _CONTRAST.search(middle):
        return bool(_HEAD_END.match(rest) or _A_NAME.match(rest))
    link = _LINK.fullmatch(middle)
    if not link or not _NAME_END.match(rest):
        return False
    start, end = (one[1] + place for place in link.span("before"))
    if any(start <= name[0] and name[1] <= end for name in names):
        return False
    return not _CONTRAST.search(link["before"].rsplit(",", 1)[-1])


_SENTENCE = re.compile(r"[。;!?]|分别")
_CONTRAST = re.compile(r"不|[并而绝]非|勿|[与和跟同比]|类似|混|另|替|更|避免|禁|但|而(?!非)")
_FORM = r"(?:缓释|肠溶|咀嚼|分散)?(?:片剂?|胶囊|颗粒|口服液|口崩片|注射液|滴剂)?"
_CALLED = (
    r"(?:也叫|又叫|俗称|又称|亦称|也称|又名|别名|商品名|通用名|学名|化学名|英文名|中文名|简称|全称|品牌"
    r"|(?<![立随])即(?![使将可刻])|也就是|就是|等于|等同于|相当于|叫做|叫|称为|称作|名为|=)"
)
_ITEMS = r"(?:[^、,。;!?()]{1,12}[、和或及/])*"
_BRACKET = re.compile(
    rf"{_FORM}(?:\([^()]*\))?\((?:{_CALLED}|如)?[为是:]?(?:(?:(?![并而]非)[^()不与同勿或]){{1,12}}[、和,/])*(?:{_CALLED}[为是:]?)?"
)
_LINK = re.compile(
    rf"{_FORM}(?P<before>.{{0,30}}?){_CALLED}(?:[叫为是有:]|包括)*(?:(?:大家|人们|我们|俗|[常所])*[说称叫谓]的?)?"
    rf"{_ITEMS}"
)
_IS = re.compile(
    rf"{_FORM}(?:\([^()]*\))?,?(?:其实|实际上|本质上|本身|一般|通常|[也都就]|的(?:主要|有效|活性)*成分)*"
    r"(?:是|为|属于?)(?!否)[^,。;!?()]{0,16}"
)
_NAME_END = re.compile(rf"{_FORM}(?![的类])(?=[)(、,。;!?和或等/]|$|是|为|可|能|不|在|用|主)")
_HEAD_END = re.compile(rf"{_FORM}(?:类药?物?|药物?|之一)?(?=[)、,。;!?]|$)")
_A_NAME = re.compile(
    r"的(?:商品名|别名|俗称|通用名|化学名|英文名|另一个?名[字称]?|又一名称|简称|学名)"
)
_AND = ("和", "与", "跟", "同", "及", "、")
_SAME = re.compile(
    r"(?:其实|实际上|都|就)*(?:是|为|属于?)(?:同一(?![类系族])|一回事|一样的药|相同的药|(?:一样|相同)的?(?=[,。;!?]|$))"
)
