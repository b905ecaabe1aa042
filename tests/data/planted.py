"""Questions in the shape of the knowledge-graph set, and copies of questions with small changes."""

import random
from collections.abc import Callable, Iterable

STEMS = " ".join(
    (
        "胃 肝 肺 肾 心肌 脑 脾 胰腺 胆囊 皮肤 子宫 卵巢 乳腺 前列腺 膀胱 甲状腺 食管 支气管",
        "膝关节 腰椎 颈椎 股骨 淋巴管 视网膜 角膜 鼻窦 咽 喉 牙周 中耳 肛管 直肠 结肠 十二指肠",
        "输卵管 尿道 胸膜 腹膜 心包 脊髓 三叉神经 垂体 肾上腺 扁桃体 阑尾 肩周 头皮 胎盘 睾丸",
    )
).split()
HEADS = " ".join(
    (
        "急性 慢性 先天性 原发性 继发性 老年性 小儿 妊娠期 复发性 病毒性 细菌性 过敏性 药物性",
        "酒精性 糖尿病性 遗传性 早期 晚期 双侧 左侧 右侧 外伤性 良性 恶性 弥漫性",
    )
).split()
TAILS = " ".join(
    (
        "炎 癌 溃疡 综合征 结石 肿瘤 囊肿 出血 梗死 损伤 感染 功能不全 硬化 纤维化 增生 萎缩 狭窄",
        "畸形 水肿 坏死 脓肿 息肉 结核 血栓 积液 转移癌 淋巴瘤 血管瘤",
    )
).split()
SYLLABLES = (
    "阿奥巴贝本比布卡达地丁多恩法菲伏福格哈海吉加卡康科克拉兰劳勒里利林隆罗洛马麦美米莫纳尼诺"
)
FORMS = " ".join(
    (
        "辅助治疗有些什么 手术治疗有些什么 药物治疗有些什么 推荐药有些什么 治疗方式是什么",
        "临床表现有些什么 并发症有些什么 影像学检查有些什么 实验室检查有些什么 病因是什么",
        "高危因素有些什么 发病部位是什么 传播途径有些什么 多发群体有些什么 就诊科室是什么",
        "预防措施有些什么 鉴别诊断有些什么 发病机制是什么 病理分型有些什么 预后情况怎么样",
    )
).split()
LETTERS = (
    "的一是不在有这上来到时大地为子中说生年和出也后自以会可下过天"
    "去能对多然于心学好起发成只把用想痛药治疗病"
)


def disease(chance: random.Random) -> str:
    """Returns a made-up name; many differ from one another by one character or one modifier."""
    if chance.random() < 0.3:
        name = "".join(chance.choices(SYLLABLES, k=chance.randrange(2, 6)))
        return name + chance.choice(("综合征", "氏病", "菌感染", "病"))
    name = chance.choice(STEMS) + chance.choice(TAILS)
    for _ in range(chance.choice((0, 1, 1, 2))):
        name = chance.choice(HEADS) + name
    return name


def templates(count: int, seed: int) -> list[str]:
    """Returns `count` different questions, one to eight for each made-up disease."""
    chance = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        name = disease(chance)
        for form in chance.sample(FORMS, chance.choice((1, 1, 2, 3, 8))):
            made[f"{name}的{form}？"] = None
    return list(made)[:count]


def _greeting(text: str, chance: random.Random) -> str:
    return chance.choice(("您好，", "医生你好，", "请问一下，", "大夫您好，我想咨询一下，")) + text


def _closing(text: str, chance: random.Random) -> str:
    return text.rstrip("？?") + chance.choice(
        ("，谢谢", "？急，在线等", "，非常感谢您的解答", "，求解答")
    )


def _punctuation(text: str, chance: random.Random) -> str:
    """Changes width, puts a sign between two Chinese characters and others at the end."""
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in text)
    between = [n for n in range(1, len(wide)) if _is_han(wide[n - 1]) and _is_han(wide[n])]
    if between:
        at = chance.choice(between)
        wide = wide[:at] + chance.choice((" ", "，", "、")) + wide[at:]
    return wide.rstrip("？") + chance.choice(("。", "！", "??", "~"))


def _is_han(letter: str) -> bool:
    return "\u4e00" <= letter <= "\u9fff"


def _fillers(text: str, chance: random.Random) -> str:
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(text) + 1)
        text = text[:at] + chance.choice(FILLERS) + text[at:]
    return text


def _edited(text: str, chance: random.Random, kind: str, times: int) -> str:
    letters = list(text)
    for _ in range(times):
        at = chance.randrange(len(letters))
        if kind == "insert":
            letters.insert(at, chance.choice(LETTERS))
        elif kind == "delete":
            del letters[at]
        else:
            letters[at] = chance.choice(LETTERS)
    return "".join(letters)


CLOSINGS = ("，谢谢", "？急，在线等", "，非常感谢您的解答", "，求解答")
FILLERS = (
    "请问",
    "一下",
    "到底",
    "究竟",
    "那个",
    "的话",
    "呢",
    "啊",
    "其实",
    "大概",
    "嗯",
    "一般",
    "通常",
    "都",
)
Change = Callable[[str, random.Random], str]
CHANGES: dict[str, Change] = {
    "greeting": _greeting,
    "closing": _closing,
    "punctuation": _punctuation,
    "fillers": _fillers,
}
EDITS: dict[str, Change] = {
    f"{kind} {times}": lambda text, chance, k=kind, n=times: _edited(text, chance, k, n)  # type: ignore[misc]
    for kind in ("substitute", "insert", "delete")
    for times in (1, 2)
}


def copies(questions: Iterable[str], count: int, seed: int) -> list[tuple[str, str, str]]:
    """Returns (kind, question, changed question), `count` of each kind.

    Edits are made in questions of at least 20 characters.
    """
    chance = random.Random(seed)
    pool = list(questions)
    long = [question for question in pool if len(question) >= 20]
    made = []
    for kind, change in (CHANGES | EDITS).items():
        chosen = chance.sample(long if kind in EDITS else pool, count)
        made += [(kind, question, change(question, chance)) for question in chosen]
    return made
