"""The core of a question: what it is about, without the phrases that thousands share.

Of 胃癌的辅助治疗有些什么, a question asked of a hundred thousand diseases, the core is 胃癌. First
filler words go, then what phrases cover that are frequent in the corpus, also those with a
character wrong, missing or too many in their middle.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Codes = NDArray[np.uint32]
    Marks = NDArray[np.bool_]

# A phrase of four characters is frequent when so many texts hold it. By share alone a common
# disease would count as a phrase in a small set.
FREQUENT_SHARE = 0.002
FREQUENT_LEAST = 50

# Words that ask, greet or thank; a word too many costs little, since wholes are compared too.
FILLERS = (
    "的 了 呢 吗 啊 呀 吧 哦 嗯 么 呗 啦 嘛 哎 喔 唉 呃 请 您 你 我 想 都 也 又 就 还 很 这",
    "哪 啥 帮 请问 想问 咨询 询问 请教 问下 问一下 一下 一般 什么 怎么 怎样 如何 为什么 为啥",
    "有什么 有哪些 哪些 多少 是不是 有没有 能不能 可不可以 可以 应该 是否 知道 想知道 了解",
    "告诉 求助 求解 解答 回答 回复 指教 帮忙 帮助 麻烦 打扰 谢谢 多谢 感谢 非常 十分 万分",
    "您好 你好 医生 大夫 专家 老师 主任 大家 各位 朋友 有人 在线 急求 急急 着急 求救 拜托",
    "到底 究竟 其实 大概 比较 一直 现在 目前 平时 通常 那个 这个 就是 就是说 然后 的话 来说",
    "一般来说 而言 时候 情况 问题 觉得 感觉 听说 据说 好的 希望 祝您 工作 愉快 在此 先谢 辛苦",
    "看看 盼复",
)

_BINS = 24
_END = 10  # "\n", which no normalised text holds


def bare(texts: Sequence[str]) -> list[str]:
    """Returns each text without filler words, wherever they stand."""
    codes = letters(texts)
    return _without(codes, _fillers(codes))


def cores(texts: Sequence[str]) -> list[str]:
    """Returns the core of each text.

    Args:
        texts: The whole corpus, each text once: what is frequent is counted in it.
    """
    codes = letters(texts)
    return _without(codes, _phrases(codes, FREQUENT_SHARE * len(texts)))


def letters(texts: Sequence[str]) -> "Codes":
    """Returns the characters of all texts in a row, each text followed by a line feed."""
    import numpy as np

    return np.frombuffer("\n".join([*texts, ""]).encode("utf-32-le"), dtype=np.uint32)


def beginnings(codes: "Codes") -> "NDArray[Any]":
    """Returns where each text begins in what `letters` gave."""
    import numpy as np

    return np.flatnonzero(np.concatenate(([True], codes[:-1] == _END)))


def _without(codes: "Codes", covered: "Marks") -> list[str]:
    """Returns the texts without what is covered; one of which too little would be left, as it is.

    Too little is less than two characters.
    """
    import numpy as np

    if not len(codes):
        return []
    ends = codes == _END
    starts = beginnings(codes)
    kept = np.add.reduceat((~covered & ~ends).astype(np.int64), starts)
    covered &= ~np.repeat(kept < 2, np.diff(starts, append=len(codes)))
    text: str = codes[~covered | ends].tobytes().decode("utf-32-le")
    return text.split("\n")[:-1]


def _phrases(codes: "Codes", share: float) -> "Marks":
    """Marks what frequent phrases cover.

    A phrase of five with its middle left out is compared with one of four, hence a character too
    many, a missing and a wrong one are found by three look-ups.
    """
    import numpy as np

    ends = codes == _END
    fours, fives = _inside(ends, 4), _inside(ends, 5)
    four = _hashed(codes, (0, 1, 2, 3))
    five = _hashed(codes, (0, 1, 2, 3, 4))
    gapped = _hashed(codes, (0, 1, 3, 4))
    least = max(FREQUENT_LEAST, share)
    frequent = np.bincount(four[fours], minlength=1 << _BINS) > least
    is_frequent = np.bincount(five[fives], minlength=1 << _BINS) > least
    torn = np.zeros(1 << _BINS, dtype=bool)
    torn[gapped[fives & is_frequent[five]]] = True
    covered = _covered(fours & (frequent[four] | torn[four]), 4)
    return covered | _covered(fives & (frequent[gapped] | torn[gapped]), 5)


def _fillers(codes: "Codes") -> "Marks":
    """Marks what filler words cover."""
    import numpy as np

    words = " ".join(FILLERS).split()
    covered = np.zeros(len(codes), dtype=bool)
    for size in sorted({len(word) for word in words}):
        known = np.zeros(1 << _BINS, dtype=bool)
        listed = letters([word for word in words if len(word) == size])
        known[_hashed(listed, range(size))[beginnings(listed)]] = True
        covered |= _covered(known[_hashed(codes, range(size))], size)
    return covered


def _hashed(codes: "Codes", places: Sequence[int]) -> "Codes":
    """Returns a hash of `_BINS` bits of the characters at `places` from each on."""
    import numpy as np

    padded = np.append(codes, np.full(max(places), _END, dtype=np.uint32))
    hashed = np.zeros(len(codes), dtype=np.uint32)
    for place in places:
        hashed *= np.uint32(0x01000193)
        hashed += padded[place : place + len(codes)]
    hashed *= np.uint32(0x9E3779B1)
    hashed >>= np.uint32(32 - _BINS)
    return hashed


def _inside(ends: "Marks", size: int) -> "Marks":
    """Marks the places from which `size` characters are of one text."""
    import numpy as np

    inside = ~ends
    for step in range(1, size):
        inside[:-step] &= ~ends[step:]
        inside[len(inside) - step :] = False
    return np.asarray(inside)


def _covered(begins: "Marks", size: int) -> "Marks":
    """Marks `size` characters from each place marked."""
    covered = begins.copy()
    for step in range(1, size):
        covered[step:] |= begins[:-step]
    return covered
