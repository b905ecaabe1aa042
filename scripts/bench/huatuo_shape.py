"""Writes a corpus in the shape of Huatuo-26M: its rows, lengths, schemas, repeats and dirt.

    python scripts/bench/huatuo_shape.py FOLDER [--rows 34042913] [--seed 42]

    FOLDER  gets the four files under the names they have after `make data`; 5.4 GB in full

What the numbers below say was measured on the real sets (their data cards, and 6,000 rows of the
test set); the text itself is made up of word lists and common characters, and means nothing. The
same seed gives the same bytes, however many processes write them.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import log
from pathlib import Path
from typing import NamedTuple

from medqa import cli

ROWS = {
    "consultation": 32_706_346,
    "knowledge_graph": 796_444,
    "encyclopedia": 362_420,
    "lite": 177_703,
}
FILES = {
    "consultation": "huatuo_consultation_qa/train_datasets.jsonl",
    "knowledge_graph": "huatuo_knowledge_graph_qa/train_datasets.jsonl",
    "encyclopedia": "huatuo_encyclopedia_qa/train_datasets.jsonl",
    "lite": "Huatuo26M-Lite/format_data.jsonl",
}
CHUNK = {"consultation": 100_000, "knowledge_graph": 50_000, "encyclopedia": 5_000, "lite": 10_000}
WORKERS = 2

# Shares of rows. Dirt: of answers of the encyclopedia and of Lite.
REPEATED = {"encyclopedia": 0.37, "lite": 0.009}
GREETING, LABEL, WISH = 0.29, 0.24, 0.10
NO_FINAL_STOP, CUT_SHORT = 0.28, 0.0235  # the second are part of the first
HALF_WIDTH_STOPS = 0.145
RARE = 0.01  # each of: markup, full-width digits, an advertisement with a telephone number
PARAPHRASED = 0.1  # encyclopedia rows with a second phrasing of their question
NEAR = 0.03  # encyclopedia questions that are another one with a courtesy added
SENTENCES = {"encyclopedia": 18.5, "lite": 4.8}  # in an answer, on average
SPREAD = 0.7  # of the logarithm of their number
LONGEST = 1_500  # sentences: the longest real answer has 43,809 characters

DISEASES = "炎 综合征 病 结石 肿瘤 损伤 溃疡 感染 畸形 瘤 片 胶囊 注射液 颗粒 口服液 骨折 囊肿 增生"
SYMPTOMS = (
    "头痛 头晕 咳嗽 发热 腹痛 腹泻 恶心 呕吐 乏力 胸闷 气短 失眠 便秘 皮疹 瘙痒 水肿 耳鸣 心慌 "
    "多汗 口干 尿频 尿急 关节痛 腰痛 食欲不振 视物模糊 手脚麻木 咽喉肿痛 鼻塞流涕 月经不调"
)
ADVICE = (
    "多喝水 注意休息 清淡饮食 避免劳累 遵医嘱用药 定期复查 保持心情舒畅 戒烟限酒 适当运动 "
    "少吃辛辣刺激的食物 及时到医院就诊 做血常规检查 保持局部清洁 控制体重 保证充足的睡眠"
)
PEOPLE = "我 孩子 宝宝 我妈妈 我爸爸 爷爷 奶奶 老公 老婆 朋友 女儿 儿子 患者 男朋友"
RELATIONS = (
    "药物治疗 手术治疗 辅助治疗 临床表现 并发症 实验室检查 影像学检查 预防 发病部位 相关疾病 病因 "
    "高危因素 鉴别诊断 诱因 传播途径 推荐用药 多发群体 病理分型 放射治疗 转移部位 相关症状 预后状况"
)
# Phrasings of one question stand together.
ASKED = (
    ("的症状有哪些表现？", "早期有什么症状？", "会出现哪些症状？"),
    ("应该怎么治疗？", "如何治疗比较好？", "的治疗方法有哪些？"),
    ("的用法用量", "应该怎么服用？", "一天要吃几次？"),
    ("的副作用有哪些？", "有什么不良反应？", "吃多了有害处吗？"),
    ("是什么原因引起的？", "的病因是什么", "是怎么得的？"),
    ("多长时间才能治愈？", "能完全治好吗？", "要治疗多长时间？"),
    ("的注意事项有哪些", "平时要注意什么？", "患者日常该注意些什么？"),
    ("应该挂什么科？", "应该看哪个科室？", "去医院挂哪个科"),
    ("需要做哪些检查？", "的检查项目有哪些？", "怎么确诊"),
    ("会传染给家里人吗？", "有传染性吗", "传染性强不强？"),
    ("患者不能吃什么？", "的饮食禁忌", "饮食上要忌口哪些？"),
)
SENTENCE = (
    "{x}是临床上比较常见的疾病，多数患者会有{s}、{s}等表现。",
    "建议{a}，{a}，同时{a}。",
    "口服，一次{n}片，一日{m}次，饭后服用，{k}天为一个疗程。",
    "如果{s}持续{k}天以上，应当{a}，必要时使用{x}治疗。",
    "{w}{w}{w}对{w}{w}的影响比较大，所以{a}很重要。",
    "根据你说的情况，考虑是{x}引起的{s}，可以先{a}。",
    "血压{n}20/{m}0mmHg，血糖{n}.{k}mmol/L，属于{w}{w}范围。",
    "{w}{w}可以用{x}（{n}0mg）治疗，注意{w}{w}{w}的变化。",
    "其中{w}{w}约占{k}%，{w}{w}和{w}{w}次之。",
    "{s}是{x}的主要症状；部分患者还会{s}，严重时{w}{w}。",
    "从中医的角度来说，{x}与{w}{w}{w}有关，宜{w}{w}。",
    "手术前后都要{a}，防止{x}复发。",
)
TOLD = (
    "{p}今年{n}{k}岁，最近{n}个月经常{s}，有时候还会{s}，晚上更明显。",
    "以前得过{x}，吃过{w}{w}，没有什么效果，",
    "去医院检查说是{x}，医生让{a}，",
    "从上个星期开始{s}，{w}{w}的地方也不舒服，",
    "{p}一直{a}，可是{s}还是没有好转，",
)
ASKS = (
    "请问{x}应该怎么治疗？",
    "想知道{s}是怎么回事，需要做什么检查吗？",
    "请问这种情况能用{x}吗？",
    "想得到怎样的帮助：{s}{m}天了该怎么办？",
    "这是不是{x}，严重吗？",
)
SHORT = ("怎么办？", "是怎么回事", "要紧吗？", "吃什么药好？", "正常吗？", "要去医院吗...")
GREETINGS = ("你好，", "您好，", "你好!", "您好：", "你好。")
LABELS = ("病情分析：", "指导意见：", "问题分析：", "意见建议：", "病情分析:")
WISHES = ("祝您早日康复！", "祝你健康。", "希望我的回答对你有帮助。", "祝早日恢复健康")
MARKUP = ("<br/>", "&nbsp;", "<p>", "&lt;p&gt;")
DEPARTMENTS = "内科 外科 妇产科 儿科 皮肤性病科 五官科 肿瘤科 中医科 精神心理科 感染科 骨科 营养科"
# Nothing of these, or made-up words would be rows about animals.
EXCLUDED = frozenset("猫狗犬兽禽猪牛羊鸡鸭鹅鱼鸟兔马驴")


class Pools(NamedTuple):
    """Fragments of text, in UTF-8 with nothing in them that JSON would escape."""

    words: list[str]
    things: list[bytes]
    sentences: list[bytes]  # without the final stop
    half_width: list[bytes]
    told: list[bytes]
    asks: list[bytes]
    subjects: list[bytes]
    spans: list[bytes]
    shorts: list[bytes]


@cache
def pools() -> Pools:
    """The fragments; the same in every process."""
    rng = random.Random("pools")
    codes = (bytes([0xB0 + n // 94, 0xA1 + n % 94]) for n in range(3755))  # GB 2312, level 1
    common = [char for code in codes if (char := code.decode("gb2312")) not in EXCLUDED]
    chars = rng.sample(common, 1000)
    words = sorted({"".join(rng.sample(chars, 2)) for _ in range(1500)})
    rng.shuffle(words)
    things = [thing(words, number) for number in range(20_000)]
    lists = {
        "x": things,
        "w": words,
        "s": SYMPTOMS.split(),
        "a": ADVICE.split(),
        "p": PEOPLE.split(),
        "n": list("123456789"),
        "m": list("123456"),
        "k": list("0123456789"),
    }

    def fill(patterns: Sequence[str], count: int) -> list[str]:
        made = []
        for pattern in rng.choices(patterns, k=count):
            pieces = pattern.replace("}", "{").split("{")
            pieces[1::2] = [rng.choice(lists[key]) for key in pieces[1::2]]
            made.append("".join(pieces))
        return made

    def coded(texts: Sequence[str]) -> list[bytes]:
        return [text.encode() for text in texts]

    sentences = [text.removesuffix("。") for text in fill(SENTENCE, 12_000)]
    return Pools(
        words,
        coded(things),
        coded(sentences),
        coded([text.replace("，", ",") for text in sentences if "，" in text]),
        coded(fill(TOLD, 4_000)),
        coded(fill(ASKS, 4_000)),
        coded(fill(["{p}{w}{s}", "{p}的{w}{s}", "{x}{s}", "总是{w}{s}"], 5_000)),
        coded(fill(["已经{m}天了，", "，还有{s}，", "{n}个多月了，", "和{w}{s}，"], 500)),
        coded(SHORT),
    )


def thing(words: list[str], number: int) -> str:
    """Returns a made-up disease or drug; another number gives another, up to 40 million."""
    endings, count = DISEASES.split(), len(words)
    number = number * 15_485_863 % (count * count * len(endings))
    number, ending = divmod(number, len(endings))
    return words[number // count] + words[number % count] + endings[ending]


def consultation(rng: random.Random, first: int, last: int) -> Iterator[bytes]:
    """Yields rows whose answer is a link."""
    made, count = pools(), last - first
    texts = (rng.choices(pool, k=count) for pool in (made.subjects, made.spans, made.shorts))
    row = (
        b'{"questions": ["%s%s%s"], "answers": ["https://www.example.org/question/%d/%08d.html"]}\n'
    )
    for number, subject, span, short in zip(range(first, last), *texts, strict=True):
        yield row % (subject, span, short, number % 90 + 10, number)


def knowledge_graph(rng: random.Random, first: int, last: int) -> Iterator[bytes]:
    """Yields "X的Y有些什么？" with six Y for each X, and lists of things for answers."""
    made, relations = pools(), RELATIONS.split()
    row = '{"questions": ["%s的%s有些什么？"], "answers": ["%s"]}\n'
    for number in range(first, last):
        entity, place = divmod(number, 6)
        relation = relations[(entity + 5 * place) % len(relations)]
        found = "；".encode().join(rng.choices(made.things, k=rng.randint(2, 8))).decode()
        yield (row % (thing(made.words, entity), relation, found)).encode()


def encyclopedia(rng: random.Random, first: int, last: int) -> Iterator[bytes]:
    """Yields nested lists: one question or two phrasings of it, and a long answer."""
    made = pools()
    seen: list[list[str]] = []
    for number in range(first, last):
        if seen and rng.random() < REPEATED["encyclopedia"]:
            phrasings = rng.choice(seen)
        else:
            name, asked = thing(made.words, number // 2), ASKED[number % len(ASKED)]
            phrasings = [name + ending for ending in rng.sample(asked, 2)]
            if rng.random() < NEAR and seen:
                phrasings[0] = f"请问一下{seen[-1][0].rstrip('？')}呢？"
            seen.append(phrasings)
        shown = phrasings[: 2 if rng.random() < PARAPHRASED else 1]
        questions = '", "'.join(shown).encode()
        given = answer(rng, made, SENTENCES["encyclopedia"])
        yield b'{"questions": [["%s"]], "answers": ["%s"]}\n' % (questions, given)


def lite(rng: random.Random, first: int, last: int) -> Iterator[bytes]:
    """Yields flat rows with a department, a patient's story and a shorter answer."""
    made, departments = pools(), DEPARTMENTS.split()
    seen: list[bytes] = []
    for number in range(first, last):
        question = b"".join([*rng.choices(made.told, k=rng.randint(1, 4)), rng.choice(made.asks)])
        if seen and rng.random() < REPEATED["lite"]:
            question = rng.choice(seen)
        seen.append(question)
        related = b'"%s"' % rng.choice(made.things) if rng.random() < 0.6 else b"null"
        yield (
            b'{"id": %d, "question": "%s", "answer": "%s", "score": %d, "label": "%s", '
            % (
                number,
                question,
                answer(rng, made, SENTENCES["lite"]),
                rng.randint(4, 5),
                rng.choice(departments).encode(),
            )
            + b'"related_diseases": %s}\n' % related
        )


def answer(rng: random.Random, made: Pools, mean: float) -> bytes:
    """Returns about `mean` sentences, with the dirt of the real sets in the real shares."""
    count = rng.lognormvariate(log(mean) - SPREAD**2 / 2, SPREAD)
    parts = rng.choices(made.sentences, k=min(max(round(count), 1), LONGEST))
    if rng.random() < HALF_WIDTH_STOPS:
        parts[rng.randrange(len(parts))] = rng.choice(made.half_width)
    text = "。".encode().join(parts)
    start = rng.random()
    if start < LABEL:
        text = rng.choice(LABELS).encode() + text
    elif start < LABEL + GREETING:
        text = rng.choice(GREETINGS).encode() + text
    rare = rng.random()
    if rare < RARE:
        text += rng.choice(MARKUP).encode()
    elif rare < 2 * RARE:
        text += f"，每日{rng.choice('１２３')}次".encode()
    elif rare < 3 * RARE:
        text += f"，详情请咨询电话1{rng.randrange(30, 100)}{rng.randrange(10**8):08d}".encode()
    if rng.random() < WISH:
        return text + "。".encode() + rng.choice(WISHES).encode()
    end = rng.random()
    if end < CUT_SHORT:
        return text + rng.choice("，：").encode()
    return text if end < NO_FINAL_STOP else text + "。".encode()


MAKERS = {f.__name__: f for f in (consultation, knowledge_graph, encyclopedia, lite)}


def chunk(job: tuple[str, int, int, int]) -> bytes:
    """Returns some rows of one set: name, seed, first and last number."""
    name, seed, first, last = job
    return b"".join(MAKERS[name](random.Random(f"{seed}/{name}/{first}"), first, last))


def counts(rows: int) -> dict[str, int]:
    """Returns how many of `rows` belong to each set, as in the real ones."""
    whole = sum(ROWS.values())
    found = {name: round(rows * real / whole) for name, real in ROWS.items()}
    return found | {"consultation": rows - sum(found.values()) + found["consultation"]}


def write(folder: Path, rows: Mapping[str, int], seed: int = 42) -> dict[str, Path]:
    """Writes the sets that `rows` names, with that many rows each, by two processes.

    Returns:
        Set to its file.
    """
    from multiprocessing import get_context

    files = {name: folder / FILES[name] for name in rows}
    with get_context("spawn").Pool(WORKERS) as pool:
        for name, count in rows.items():
            files[name].parent.mkdir(parents=True, exist_ok=True)
            starts = range(0, count, CHUNK[name])
            jobs = [(name, seed, first, min(first + CHUNK[name], count)) for first in starts]
            with files[name].open("wb") as out:
                for made in pool.imap(chunk, jobs):
                    out.write(made)
    return files


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the corpus and prints what it is."""
    parser = cli.parser(__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--rows", type=int, default=sum(ROWS.values()))
    parser.add_argument("--seed", type=int, default=42)
    given = parser.parse_args(argv)
    rows = counts(given.rows)
    for name, file in write(given.folder, rows, given.seed).items():
        print(f"{name}: {rows[name]:,} rows, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    cli.run(main)
