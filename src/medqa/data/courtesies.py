"""Rules that take courtesies and the labels of Q&A sites out of one text.

As in `medqa.data.mend`: no number, unit or dose changes, and no text is left without a word. The
module is long because of its lists of wordings, which stand beside the rules that read them.
"""

import re

from medqa.data.mend import ENDS, HAN, unless_empty
from medqa.data.triggers import BLANKS, EDGE, by_letter, woken_by

_WHO = (
    r"(?:(?:亲爱的|尊敬的|敬爱的?|这位|各位)*(?:\[姓名\])?(?:医生|医师|大夫|专家|教授|主任|老师|患者|"
    r"病友|朋友|网友|用户|家长|"
    r"宝妈|妈妈|先生|女士|亲|家属|楼主|同学|提问者|大家|宝妈妈)(?:们|朋友|家长|医生|专家)*)"
)
_HI = (
    r"(?:您好|你好|您们好|你们好|大家好|早上好|上午好|中午好|下午好|晚上好|新年好|节日好|周末好|"
    r"哈喽|嗨)"
)
_STOP = r"(?:[，。！？；：、,;:!?~～…]|\.(?!\d)|[^\S\n])"
_PLEASANTRY = (
    r"(?:很高兴(?:能|可以)?(?:回答|解答)[您你]的(?:问题|提问)"
    r"|(?:很)?(?:高兴|荣幸)(?:能|能够|可以)?(?:为|给|帮)[您你](?:服务|解答|回答|解惑|"
    r"解决)[^，。！？；：,.!?;:\d\n]{0,8}"
    r"|(?:感谢|谢谢)[您你]?(?:的|对)?[^，。！？；：,.!?;:\d\n]{0,10}(?:咨询|提问|信任|支持|"
    r"关注)[^，。！？；：,.!?;:\d\n]{0,8}"
    r"|我?(?:已经?)?(?:详细|认真|仔细)?(?:看|阅读|查看)(?:到|过|了|到了|过了)?[您你](?:的|所?咨询的|所?描述的|"
    r"所?提的)(?:问题|情况描述|病情描述|提问|资料)(?:叙述|描述)?"
    r"|我是[您你]的[^，。！？；：,.!?;:\d\n]{0,8}顾问"
    r"|欢迎(?:[您你])?(?:来到|的?咨询|的?提问|光临|使用)[^，。！？；：,.!?;:\d\n]{0,14}"
    r"|[您你]的(?:问题|情况|提问|咨询|病情描述)(?:我|我们)?(?:已经|已)?(?:收到|看到|了解)了?"
    r"|(?:针对)?[您你](?:的|提出的|所提的)问题(?:给予|为[您你])?(?:解答|回答|回复|分析)如下)"
)
# A greeting needs a mark after it, or must not be the beginning of another word: 你好像, 你好转.
_AFTER_HI = (
    r"(?![像转起久多几些吃喝受用难怕奇厉惨烦心看听说在玩坏吗么嘛好])(?!不容易|点了|些了|一点|一些)"
)
_OPENING = (
    rf"(?:{_WHO}?{_STOP}{{0,2}}{_HI}(?:[呀啊哦]|{_WHO}(?![说的讲让给开]))?(?:{_STOP}+|$|"
    rf"{_AFTER_HI})"
    rf"|{_WHO}好{_STOP}+"
    rf"|(?:亲爱的|亲|(?:这位)?朋友|宝妈|医生|大夫|专家|老师)(?:们)?(?:[，,！!：:~～。]{_STOP}*)|"
    rf"(?:尊敬的?|敬爱的?)(?:医生|大夫|专家|教授|老师)(?:们)?(?:[，,：:]{_STOP}*)|"
    rf"好[，,](?=(?:医生|大夫)[，,]|根据|针对|[您你]的|请问)|"
    rf"{_PLEASANTRY}{_STOP}+|很?高兴(?:能)?为[您你](?:解答|服务)(?=[{HAN}])(?![的是疑]|问题))+"
)
_GREETING = re.compile(
    rf"(?:[{HAN}]{{1,2}}(?=(?:医生|大夫|主任|教授|老师){_HI})|[A-Za-z](?={_HI}[，！。]))?{_OPENING}"
)
_GREETING_FIRST = frozenset("亲朋医大专老很高荣感谢欢针您你嗨哈早上中下晚尊敬这各新节周好")
_READ_FIRST = frozenset("我已看阅查详认仔宝")  # those of 我已经看了您的问题, and of 宝妈
_GREETING_INSIDE = re.compile(
    rf"(?:(?<=[{ENDS}：])|(?<=[0-9][.、，]))[^\S\n]?(?:{_WHO}?{_STOP}?{_HI}(?:[呀啊哦]|{_WHO})?"
    rf"(?:{_STOP}+|(?=[你您]的|建议|根据|考虑|针对)|(?<=您好){_AFTER_HI}(?!了)(?=[{HAN}]))"
    rf"(?:{_PLEASANTRY}{_STOP}+)*)"
)
# A title and the text under it often stand together unparted: …怎么办啊你好，我小孩…
_GREETING_BETWEEN = re.compile(
    rf"(?<=[{HAN}）])([，,、]?)(?:各位(?:医生|大夫|专家|老师)们?好(?=[！。，])|(?:医生|大夫|专家|"
    rf"主任)?(?<![比对为祝愿望给跟待向说声问句道都])(?<!为了)[您你]好(?:医生|大夫|专家)?)"
    rf"(?:(?=针对|根据|建议|请问|我|[您你]的)|[，,！!：:。]+)"
)
_ASKING = re.compile("怎么|怎样|什么|如何|吗|呢|哪|为何|么$")
_TITLE = re.compile("(?:主任|医生|大夫|医师|教授|老师|专家)$")


@woken_by(
    "[您你们家午上年日末生夫师]好",
    "哈喽",
    "嗨",
    "[看读][到过了][您你]",
    "[看读阅][您你][的所]",
    "是[您你]的",
    f"{EDGE}宝妈",
    first=_GREETING_FIRST,
)
def greetings(text: str) -> str:
    """Opening courtesies go: ``你好，根据你说的情况，…`` → ``根据你说的情况，…``.

    Chains too (``您好，很高兴为您解答，…``), at the start of later sentences, and without a
    mark (``你好建议你去医院``), but 你好像, 你好转 and 你好多了 stay. Real: ``朋友你好,你这情况…``,
    ``这位朋友你好：…``, ``你好医生,我想咨询一下…``.
    """
    found = None
    if text[:1] in _GREETING_FIRST or text[:1] in _READ_FIRST or "好" in text[:16]:
        found = _GREETING.match(text)
    if found:
        text = unless_empty(text, text[found.end() :])
    if "你好" in text or "您好" in text or "们好" in text or "家好" in text or "各位" in text:
        text = unless_empty(text, _GREETING_INSIDE.sub(_apart, text))
        text = _GREETING_BETWEEN.sub(_parted, text)
    return text


# Names of sections that a doctor's answer on a Q&A site is cut into, and a question's there.
_SITE_LABELS = "病情分析|病例分析|问题分析|指导意见|意见建议|指导建议|健康指导"
_LABELS = (
    f"{_SITE_LABELS}|情况分析|病史分析|心理分析|意见和建议|健康建议|心理指导|医生建议|医师建议|"
    f"医生意见|专家建议|"
    "专家意见|处理建议|处理意见|治疗建议|回复建议|建议意见|医生询问|医生回复|医生回答|医生解答|"
    "专家回答|专家回复|"
    "专家解答|生活护理|个人建议|指点意见|参考意见|知道意见|"
    r"想得到[^，。！？：:\n]{0,8}|希望得到[^，。！？：:\n]{0,4}帮助|编辑推荐|问题描述|病情描述(?:[（(]?发病时间、主要症状、症状变化等[)）]?)?|"
    "详细病情及咨询目的|病情及咨询目的|健康咨询描述|疾病描述"
)
_GAP = r"[^\S\n]*"
_SITE = _SITE_LABELS.split("|")
# Headings of a form that the site gives its patients.
_FORM = (
    "发病时间及原因",
    "化验[、，,]?检查结果",
    r"想要得到[^，。！？：:\n]{0,8}",
    "需要医生帮助提供远程诊断",
    "：需要医生帮助提供远程诊断",  # a colon for the stop that belongs there
    "本次发病及持续时间",
    "目前一般情况",
    "以往诊断治疗经过及效果",
)
# Under these, 头孢 alone is what was tried, and would say nothing without its heading.
_TRIED = (
    "治疗情况(?<![前在的体后近续]治疗情况)(?<![上此本前这每首]次治疗情况)",
    "曾经的?治疗情况(?:和效果)?",
)
_SAYS_IT = "(?![^，。！？；：\n吃喝服用打治做没无無未好住手]{1,5}(?:[。！？；]|$))"
# These are ordinary words too, and go only where nothing stands under them.
_EMPTY_FORM = (
    "患者性别",
    "患者年龄",
    "主要症状",
    "发病时间",
    "化验检查结果",
    "辅助检查",
)
_NEXT_HEADING = (
    "(?:发病时间|治疗情况|曾经的?治疗|化验、?检查|想要?得到|患者性别|患者年龄|主要症状|$)"
)
_NOTHING = (
    f"(?:暂?[无無]|我?暂?没有|[暂尚还]?未|不知道|不明白|不清楚)(?=[，。！？；、]|{_NEXT_HEADING})"
)
_DESCRIBED = "病情描述[（(](?:发病时间、主要症状|主要症状、发病时间)等?[)）]"
_HEADINGS = "|".join([_LABELS, "全部症状", _DESCRIBED, *_FORM, *_TRIED, *_EMPTY_FORM])
EMPTY_FORM = re.compile(rf"(?:(?:{_HEADINGS}){_GAP}[：:]+\s*)+")
# A noun behind one of these, 请听取指导意见, 医生的指导意见; elsewhere a label without its colon.
_NO_LABEL = (
    "(?<![给求按听此该我您你些么何点份]指导意见)"
    "(?<!(?:给出|提出|做出|作出|得出|提供|得到|听到|收到|看到|理化|体化|范化|性化|专业|听取|听从|"
    "遵从|给予|予以|遵循|遵照|遵守|依据|根据|按照|参照|以上|以下|如下|上述|下列|有什|什么|哪些|一些|"
    "以及|具体|相应|相关|有关|合适|参考|这个|有个|一个|几个|几点|几条|一份|一条|需要|没有|好的|医生|"
    "医师|大夫|专家|您的|你的|我的|们的|他的|她的|出的|供的|业的|体的|理的|确的)指导意见)"
    "(?<!(?:医生|医师|大夫|专家|医院)的指导意见)"
)
# Before a comma it is a noun, 用药指导意见，, but not behind the end of such a clause.
_CLAUSE_BEFORE = "(?<=(?:症状|所致|引起|起的|导致|致的|可能|现象|表现|关系|正常)指导意见)"
# What the site tells its doctors, and the same where one wrote into the middle of it.
_INSTRUCTION = "答非所问、敷衍、无意义回复[，,]将会被通报[！!]?"
_WOVEN = re.compile(
    "(?:指导意见[，,])?答非所问、敷衍、无意义回复[，,]将会被通(?!报)(.+?)[。，]?报[！!]$", re.M
)
# Headings that stay, as their content needs them, where nothing parts them from what is before.
_KEPT_HEADING = re.compile(
    "(?:发病时间|治疗情况|主要症状|患者年龄|患者性别|病人年龄|病人性别)"
    f"(?<=[{HAN}0-9].{{4}})(?<![的前在体后近续次上此本每首曾经是其].{{4}})(?=：)"
)
# What must stand before a label is looked at behind it.
_ANY_LABEL = (
    by_letter(
        [
            *(f"{label}{_GAP}[：:]+" for label in _LABELS.split("|")),
            f"【{_GAP}(?:{_LABELS}){_GAP}】{_GAP}[：:]*",
            *(f"{label}(?=[您你]好)" for label in _SITE),
            *(
                f"{label}(?:(?<=^.{{4}})|(?<=[{ENDS}].{{4}}))(?![是为的，,、。与和及如])"
                for label in _SITE
            ),
            rf"指导意见{_NO_LABEL}(?=[{HAN}])(?!如下|[是为的与和及吗呢吧来])",
            f"指导意见{_CLAUSE_BEFORE}(?=[，,])",
            "指导意见(?<=有关指导意见)(?=个人建议)",
            *(f"{label}(?<=[{ENDS}].{{4}})(?=。)" for label in _SITE),
            f"生活护理(?<=[{ENDS}].{{4}})(?=[{HAN}\\d])(?![是的方工上中和与及也应要需不很非措])",
            "意见建议(?<![的些么何出供]意见建议)(?<!指导意见建议)(?![的，、是])",
            f"全部症状{_GAP}[：:；;]+(?:{_GAP}{_NOTHING})?",
            f"患者年龄[：:](?=[{HAN}])(?![一二三四五六七八九十两未不约半幼男女]|{_NEXT_HEADING})",
            f"患者性别[：:](?=[{HAN}])(?![男女未不]|{_NEXT_HEADING})",
            *(f"{word}(?=。)(?<=[{ENDS}]{word})" for word in ("建议", "治疗方案")),
            *(f"{heading}{_GAP}[：:]+(?:{_GAP}{_NOTHING})?" for heading in _FORM),
            *(f"{heading}{_GAP}[：:]+(?:{_GAP}{_NOTHING}|{_SAYS_IT})" for heading in _TRIED),
            *(f"{word}{_GAP}[：:]+(?:{_NOTHING}|(?={_NEXT_HEADING}))" for word in _EMPTY_FORM),
            _DESCRIBED,
            f"发病时间及原因(?<=[{ENDS}].{{7}})",
            "曾经治疗情况及是否有过敏、遗传病史[：:]*",
            "请依照发病时间、主要症状表现来填写此部分",
            "请输入问题的描述[，,]医生将为您一一解答",
            "请(?:根据|针对)(?:患者|提问者)?想要?得到的帮助[，,]提供合理化"
            f"(?:指导意见[，,]{_INSTRUCTION})?",
            "附件[：:]点击查看大图",
            "建议[：:](?<=^建议.)",
            "见建议[：:](?<!意见建议.)",
        ]
    )
    + rf"|\|#\||\[(?:{_SITE_LABELS})\]?"
)
# Labels in a row at once: between two of them stands nothing that wants a full stop.
_LABEL = re.compile(rf"(?:{_ANY_LABEL})(?:[^\S\n]|[：:，,。；;、！!]|{_ANY_LABEL})*", re.M)
_ASKED = re.compile(r"(?:问题?|答案?|回答|回复|答复|提问|问答)[^\S\n]?[：:][^\S\n]*")
# Words that the text needs further inside, and not where it begins.
_FIRST_LABEL = re.compile(
    "主要症状[：:](?=.*(?:发病时间|化验、?检查结果|曾经的?治疗)[：:情])|治疗指导[：:]|分析[：:，,]"
)
_FIRST = frozenset("主治分")
# Some questions were cut off in the middle of a label.
_EMPTY_LABEL = re.compile(
    r"(?:曾经的?治疗?情?况?和?效?果?|曾经$|发病时间及原因|治疗情况|化验、检查结果|"
    r"病情描述[（(]发病时?间?、?主?要?症?状?等?|"
    r"想要?得到(?:怎样|什么|医生|怎|样|的)*(?:帮助?)?[？?]?|医生询问|生活护理|"
    r"怎样的帮助(?=[：:]))[：:]?(?:无|没有|暂无)?[。！？]?$"
)
_STUMP = re.compile("(?<=[。！？?!])想得?$")  # of 想得到怎样的帮助
# What the site's form left of an age: 岁问题描述：…
_SCRAP = re.compile(r"\A[岁天](?:。|，|(?=患者|我|病史))")
_ENUMERATED = re.compile(
    r"(?:^|[。！？；\n])[（(]?(?:\d{1,2}|[一二三四五六七八九十]{1,2})[、.．）)]$"
)
# A label may have come to stand within a sentence, or a word: 可初步考虑是指导意见角膜炎,
# 既然是不想顺产指导意见就不用担心, 建议你服用奥意见建议：美拉唑.
_GOES_ON = frozenset("是为与和及或奥阿呋")
_CARRIES_ON = frozenset("就则才都也而并且")
_OF_A_QUESTION = re.compile(
    "想|希望|曾经|治疗情况|化验|发病时间|病情描述|问题描述|全部症状|详细病情"
)
_ASKED_FIRST = frozenset("问答回提")
_SCRAP_FIRST = ("岁", "天")


@woken_by(
    *(f"[析见议导问复答理述的状因况果助断别龄间查）){BLANKS}]{colon}" for colon in "：:"),
    "[情例题]分析",
    "疗方案。",
    f"想得{EDGE}",
    "全部症状",
    "指导意见",
    "[见导]建议",
    "健康指导",
    "[想要]得到",
    "【",
    "|#|",
    "治疗情况",
    "化验、",
    "医生询",
    "生活护",
    "曾经",
    "病时间及",
    "描述[（(]",
    "请依照发",
    "[将查][为看][您大]",
    "答非所问",
    # A set of what must not stand there has a bit to itself: with others, these wake in vain.
    "[^议]建议。",
    f"[^得]想{EDGE}",
    *(f"{EDGE}{word}[^师]" for word in (*_SCRAP_FIRST, "分析")),
    first=_ASKED_FIRST,
)
def section_labels(text: str) -> str:
    """Labels such as ``病情分析：`` go, at the start and inside; what stands under them stays.

    A sentence that a label cut short gets its full stop. Headings of the site's form go as well,
    and a ``无`` under them. Real: ``…可以治疗呀意见建议：注意休息`` →
    ``…可以治疗呀。注意休息``, ``…上火引起的指导意见请问最近…``, ``…有关.|#|口服…``, in questions
    ``想得到怎样的帮助：…``, ``…有三次了曾经治疗情况和效果：没有。``, cut off ``…有影响曾经治疗情``.
    """
    asked = _ASKED.match(text) if text[:1] in _ASKED_FIRST else None
    mended = text[asked.end() :] if asked else text
    if "答非所问" in mended:
        mended = _WOVEN.sub(r"\1。", mended)
    while True:
        before = mended
        if mended[:1] in _FIRST and (first := _FIRST_LABEL.match(mended)):
            mended = mended[first.end() :]
        mended = _LABEL.sub(_boundary, mended)
        empty = _EMPTY_LABEL.search(mended, max(0, len(mended) - 24))
        if empty:
            mended = mended[: empty.start()].rstrip("，,、；：: ")
        if mended[-1:] in ("想", "得"):
            mended = _STUMP.sub("", mended)
        if mended[:1] in _SCRAP_FIRST:
            mended = _SCRAP.sub("", mended)
        if "：" in mended and mended != text:  # a form; 请说明发病时间： is a sentence
            mended = _KEPT_HEADING.sub(r"。\g<0>", mended)
        if mended == before:
            break
    return unless_empty(text, mended)


_NO_STOP = r"[^，。！？；：、,.!?;:\d\n]"
_WISHED = (
    r"(?:健康成长|健康快乐|健康平安|健康顺利|快乐健康|身体健康|健康|安康|早日?康复|康复|"
    r"早如康复|恢复健康|恢复|"
    r"痊愈|好孕|平安|顺利|快乐|愉快|幸福|好运|成功|如意|每一天|早生贵子|吉祥|茁壮成长|胖宝宝|"
    r"健康宝宝|宝宝|[您你]?好|康|降)"
)
_WISH = (
    rf"(?:首先|最后[，,]?|顺|谨|恭|并|也|同时|再次|衷心|在此|预|并且)*(?<![庆])祝(?:愿|福)?"
    rf"(?:{_NO_STOP}{{0,14}}?{_WISHED}){{1,3}}(?:[，,、]?(?:身体健康|生活愉快|心情愉快|工作顺利|"
    rf"茁壮成长|健康成长|"
    rf"万事如意|(?:合|阖)家(?:欢乐|幸福)))*|保佑[您你](?:们|健康|平安)*"
)
_HOPE = (
    rf"(?:以上(?:就是|是|的)?(?:我的|我)?(?:建议|回答|内容|方法|意见|信息|解答|所述|"
    rf"分析)?(?:仅供参考)?[，,]?)?"
    rf"(?:也|最后|衷心|真心)?希望{_NO_STOP}{{0,18}}?(?:对[您你]{_NO_STOP}{{0,4}}(?:有|会有|"
    rf"能有){_NO_STOP}{{0,4}}帮助到?"
    rf"|(?:对[您你])?有(?:所)?帮助|(?:帮到|帮助到?|帮)[您你](?:们)?(?:缓解|解决)?|"
    rf"给[您你]带?来?{_NO_STOP}{{0,4}}帮助|"
    rf"[让令使][您你]{_NO_STOP}{{0,4}}满意(?:[，,]对[您你]有(?:所)?帮助)?"
    rf"|[您你]{_NO_STOP}{{0,6}}满意|[您你]?正确的?治疗[，,]?早日(?:康复|恢复)"
    rf"|早日的?(?:恢复)?(?:健康|康复|痊愈|恢复)|(?:对[您你])?有(?:所)?用)"
)
_ABOVE = "以上(?:是|就是)(?:我|我们)?(?:对|关于)"
_ADVICE = "(?:这个)?问题的(?:建议|解答|回答|回复)"
_QUOTED = rf"{_ABOVE}(?:“[^\d\n”]{{0,80}}”|[“\"‘'「]?[^\d\n。]{{0,80}}?[”\"’'」]?){_ADVICE}"
_CONCERNED = (
    rf"以上(?:就是)?关于{_NO_STOP}{{2,30}}的(?:解答|回答|介绍)"
    r"|(?:以上|上述)(?:内容|意见|建议|回答|分析|信息)?(?:仅|只)?供[您你]?参考"
)
_THANKS = (
    rf"(?:非常|十分|最后)?(?:谢谢|感谢|多谢)(?:[您你](?:们)?)?(?:的|对)?"
    rf"(?:{_NO_STOP}{{0,10}}(?:咨询|提问|信任|支持|采纳|配合|关注|理解|合作))?了?"
)
_WELCOME = (
    rf"(?:欢迎|期待)[您你]?(?:再次|再来|下次|继续|随时|前来|来|到|的)*(?:咨询|追问|提问|光临|"
    rf"交流|联系)我?(?:们)?"
    rf"|(?:如果?|若|要是)?(?:您|你)?(?:还)?(?:有|存)(?:什么|任何|其他|其它|不清楚的|相关的?|"
    rf"别的)*(?:疑问|疑惑|问题|不懂的|不明白的|需要|不清楚的?)"
    rf"(?:的话|需要|的地方)*[，,]?(?:您|你)?(?:都)?(?:可以|可|请|欢迎[您你]?|(?=再))(?:再次|再|继续|"
    rf"随时|直接|来|向我|与我)*(?:咨询|提问|追问|联系|留言|问我|沟通)(?:我|我们)?"
    rf"|(?:很)?高兴(?:能)?(?:为|帮)[您你](?:服务|解答){_NO_STOP}{{0,4}}|还有什么问题需要咨询吗"
    rf"|我(?:会|将)尽我所能帮助[您你]|我们?(?:会|将)(?:及时|尽快|竭诚)为[您你](?:解答|服务)|"
    rf"[您你]的问题解答完毕"
)
_RATE = (
    rf"(?:如果?|若)(?:有了)?满意的(?:回答|答案)(?:[，,]?请{_NO_STOP}{{0,6}}采纳)?"
    rf"|(?:如果?|若){_NO_STOP}{{0,14}}(?:回答|回复|答案|建议|解答|"
    rf"得回复){_NO_STOP}{{0,8}}(?:满意|有(?:所)?帮助)(?:的话)?"
    rf"(?:[，,]?(?:请|就|麻烦|那么请){_NO_STOP}{{0,10}}[“\"]?(?:采纳|评价|好评|点评|"
    rf"点赞){_NO_STOP}{{0,6}})?"
    rf"|(?:对)?我的(?:回答|回复)满意[，,]那么请{_NO_STOP}{{0,4}}评价"
    rf"|(?:请|麻烦|望|方便话麻烦|方便的话麻烦|是否|别忘了|记得|方便的话)(?:您|你)?(?:对我的|"
    rf"给我|给予|及时|给个|给我的回答|给|点击|点|在我的?)?{_NO_STOP}{{0,8}}(?:采纳|点评|评价|"
    rf"好评|五星){_NO_STOP}{{0,6}}"
    rf"|不要辜负了回答者|不知道?我的(?:回答|回复|解答)[您你]?是否满意"
)
_ANY_CLOSING = f"(?:{_WISH}|{_HOPE}|{_QUOTED}|{_CONCERNED}|{_WELCOME}|{_RATE})"
_NEXT = (
    r"(?=祝|希望|谢谢|感谢|多谢|欢迎|再者|另外|请对|请给|请点|如果|如有|如我|最后|顺祝|也希望|以上)"
)
_MARK = r"(?:[，。！？；、,;!?~～…]|\.(?!\d)|[^\S\n])"
# A word of each closing; what else closes stands at most 60 characters before it.
_CLOSING_HINT = re.compile(
    r"祝|保佑[您你]|供(?:[您你]?参考)|希望(?=[^，。！？；：,.!?;:\d\n]{0,24}(?:帮|满意|[，,]?早日|有用))|谢谢|感谢|多谢|欢迎|期待|"
    r"满意|回答[^。]{0,8}帮助"
    r"|采纳|评价|点评|好评|以上(?:是|就是|关于)|高兴[能为帮]|尽我所能|为[您你](?:解答|服务)|"
    r"解答完毕|需要咨询吗|"
    + "|".join(  # each alternative begins with a letter, for the speed of the search
        rf"{verb}(?=我|[，。！？、,.!?~～…\s]|$)"
        for verb in ("咨询", "提问", "追问", "联系", "留言", "问我", "沟通")
    )
)
_CLOSING_FIRST = (
    "首最顺谨恭并也同再衷在预祝以上保真希非十谢感多欢期如若要您你还有存很高我请麻望方是别记不对"
)

_CLOSING = re.compile(
    rf"(?:[^\S\n]|[，,、；;]){{0,4}}(?=[{_CLOSING_FIRST}])(?:(?:{_ANY_CLOSING}|"
    rf"(?:(?<![{HAN}A-Za-z0-9])|(?<=谢谢)){_THANKS}"
    rf"|(?<![说声句道])(?:谢谢|多谢)(?={_MARK}*(?:$|"
    rf"以上)))[哦啊呀啦吧了的哈呦哟]{{0,2}}(?:{_MARK}+|$|(?=\n)|{_NEXT}))+"
)


@woken_by(
    "祝",
    "希望",
    "[谢感多]谢",
    "欢迎",
    "期待",
    "满意",
    "回答",
    "采纳",
    "评价",
    "[点好]评",
    "以上[是就关]",
    "供参考",
    "供[您你]参",
    "保佑[您你]",
    "高兴[能为帮]",
    "尽我所能",
    "为[您你]服务",
    "为[您你]解答",
    "解答完毕",
    "咨询",
    "提问",
    "追问",
    "联系",
    "留言",
    "沟通",
    "问我",
)
def closing_wishes(text: str) -> str:
    """Wishes and thanks that close an answer go, also where other sentences follow.

    ``以上是对“孕27周…”这个问题的建议`` stays, as no rule takes a number out of an answer; but see
    `unquoted`, which knows the question.
    Real: ``…多喝水，祝早日康复`` → ``…多喝水。``, ``希望我的回答对您有帮助，祝您健康！``,
    ``以上是对“…”这个问题的建议``, ``祝你健康欢迎再来咨询，``, ``请对我的回答做出评价，谢谢！``.
    """
    hint = _CLOSING_HINT.search(text)
    if not hint:
        return text
    start = max(0, hint.start() - 60)  # nothing that closes begins further before its first word
    return unless_empty(text, text[:start] + _CLOSING.sub(_without_closing, text[start:]))


_QUOTING = re.compile(  # a title with numbers too, at the end
    rf"(?:[^\S\n]|[，；])*{_ABOVE}(?P<quoted>[“\"].{{0,150}}?[”\"]|[^“”\n]{{0,150}}?){_ADVICE}。?$"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?[^\W\d_]?")


def unquoted(question: str, answer: str) -> str:
    """Returns an answer without the formula that closes it by quoting the question's title.

    The numbers that go with it are those of the quoted question. So it stays where the question
    lacks one of them with its unit. Real: ``…以上是对“…奶量已经能喝180ml了”这个问题的建议。``

    Args:
        question: The mended question.
        answer: The mended answer.
    """
    found = _QUOTING.search(answer) if "问题的" in answer[-8:] else None
    if not found or not {*_NUMBER.findall(found["quoted"])} <= {*_NUMBER.findall(question)}:
        return answer
    before = answer[: found.start()]
    return unless_empty(answer, before if before[-1:] in ENDS else f"{before}。")


_PLEA = (
    r"(?:(?:非常|万分|十分|先|多|在此|在这里|真的)*(?:谢谢|感谢|多谢|拜谢)谢?"
    r"(?:您|你|们|医生|大夫|专家|各位|大家|老师|朋友|了|啦|解答|指教|指导|帮助|帮忙|分析|和|及|"
    r"回答|回复|答复|快速|为我|给我|的)*"
    r"|(?:跪求|恳求|请求|求|肯请|恳请|请|望|盼|希望|麻烦|期待|敬请|"
    r"烦请)(?:能?得到)?(?:各位)?(?:好心|有经验|明白)?的?(?:您|你)?"
    r"(?:专业)?的?(?:医生|大夫|专家|高手|大神|宝妈|大家|各位|老师|朋友)*(?:们)?能?(?:给予|提供|给|帮忙|帮|"
    r"予以|尽快|及时|直接|详细|专业的|速|为我|我|一个|个|一些|一点|点)*"
    r"(?:解答|回答|回复|答复|指点|指教|指导|赐教|帮助|帮忙|帮帮忙|解惑|解释|咨询|解决|分析|"
    r"建议|意见|答案|告诉我|解说|看看)(?:一下|下|谢谢)?(?:(?:我的)?(?:问题|疑惑))?"
    r"|(?:非常|很|急)?需要(?:您|你|大家|医生|专家)们?的帮助|麻烦(?:您|你|大家|医生)?[了啦]"
    r"|帮{2,}(?:我|忙)(?:吧|好吗|啊)?|(?<![代凋酬致道答姓])谢(?=[…。！~～]*$)"
    r"|求(?:速?解|助|教|急|指点|帮忙|大神|答案|经验)|不胜感激|感激不尽"
    r"|(?:能|想|哪位|麻烦|希望|请|求)(?:医生|大夫|专家|大神|大家|各位|您|你)*能?帮忙(?:我)?"
    r"(?:解决|解答|分析|看看|回答|看|出)(?:一?下|个|点)?(?:问题|疑惑|主意)?吗?"
    r"|(?:帮忙?)?[给提](?:点|个|一?些)(?:建议|意见)(?:吧|谢谢)?|希望解[决开]疑惑"
    r"|我?在?(?:等待|等候|静候)着?(?:各位|您|你|医生|专家|大夫)*的?(?:解答|回复|回答|答复)"
    r"|帮助(?:分析|解答)(?:解决)?|医生在线(?:解答|回答)|(?:好人|祝[您你])一生平安"
    r"|向(?:各位)?(?:医生|大夫|专家|大家)们?(?:求助|请教)|跪求|盼复|(?:很是|真是?|好|很|"
    r"非常)?着?急++(?:求)?|在线等|拜托(?:了|大家|各位)?|谢谢++|拜谢)"
)
# Possessive throughout: nothing is tried twice, however long a row of pleas is.
_CLOSING_PLEA = re.compile(
    rf"(?:[，。！？；、,;!?~～…\s]|(?=谢谢|感谢|急急|[请求望](?:各位)?(?:医生|大夫|专家|老师)|"
    rf"求(?:解|助|教)[。！!？?~～]*$|(?<![代凋酬致道答姓])谢[…。！~～]*$)|\.(?!\d))"
    rf"(?:(?>{_PLEA})(?:[，。！？；、,;!?~～…\s]|\.(?!\d))*+)++$"
)
_PLEA_FIRST = "非万十先多真在谢感拜跪恳请求望盼希麻期敬烦很急需帮好着肯想哪能给提不我等静向医祝"
# Such a sentence before the question, and one between two of its sentences.
_OPENING_PLEA = re.compile(rf"(?:(?>{_PLEA})[，。！？；：,;:!?~～…\s]++)++")
_PLEA_BETWEEN = re.compile(
    rf"([，。！？；…])(?=[{_PLEA_FIRST}])(?:(?>{_PLEA})[，、]?)++[。！？…]++(?=[^\s])"
)
# One before the title, which such questions repeat and cut off: …想询问一下，谢谢私处有个痘
_PLEA_BEFORE_TITLE = re.compile(
    rf"([，。！？；…])(?=[{_PLEA_FIRST}])(?>{_PLEA})(?=([{HAN}0-9A-Za-z]{{4}}))"
)
_PLEA_HINT = re.compile(
    "谢|求|急|请(?!问)|望|盼|麻烦|期待|在线等|拜托|帮[帮忙助]|感激|线解答|线回答|生平安|[等静][待候]|[点个些](?:建议|意见)"
)
_THANKS_INSIDE = re.compile(
    rf"(?<![说声句道])([，,、]?)(?:谢谢|感谢|多谢)(?:(?:您|你|医生|大夫|专家|了|啦|各位|"
    rf"大家)*[。！!，,~～]+|(?=补充|另外|再者|还有))(?=[{HAN}])"
)


@woken_by(
    "谢",
    "求",
    "急[^性]",
    "请[^问]",
    "望",
    "盼",
    "麻烦",
    "期待",
    "在线等",
    "拜托",
    "[帮的]帮[帮助忙我]",
    "帮[忙助]",
    "线[解回]答",
    "生平安",
    "感激",
    "[等静][待候]",
    "[点个些]建议",
    "[点个些]意见",
)
def question_courtesies(text: str) -> str:
    """Pleas and thanks that close a question go: ``…怎么办？谢谢医生`` → ``…怎么办？``.

    So do those that open it or are a sentence between two others. Real: ``…怎么办？急！！！谢谢``,
    ``…是什么原因，求解答``, ``…吗?谢谢!!``, ``跪求，我母亲…``, ``…是什么原因？跪求！吃辣椒…``.
    """
    if "谢" in text or "感" in text:
        text = _THANKS_INSIDE.sub(_thanked, text)
    if text[:1] in _PLEA_FIRST and (found := _OPENING_PLEA.match(text)):
        text = unless_empty(text, text[found.end() :])
    text = _PLEA_BEFORE_TITLE.sub(_titled, _PLEA_BETWEEN.sub(_pleaded, text))
    end = max(0, len(text) - 200)
    found = _CLOSING_PLEA.search(text, end) if _PLEA_HINT.search(text, end) else None
    if not found:
        return text
    mark = found[0][0]
    return unless_empty(text, text[: found.start()] + (mark if mark in "。！？!?…" else ""))


def _boundary(found: re.Match[str]) -> str:
    """Returns what must stand where a label stood, so that the sentences stay apart."""
    before = found.string[: found.start()].rstrip(" ")
    if not before or before[-1] in ENDS:
        return ""
    if _ENUMERATED.search(before[-8:]):
        return _apart(found)
    after = found.string[found.end() : found.end() + 1]
    if before[-1] in ".，,、：:；;（(“" or before[-1] in _GOES_ON or before.endswith("建议"):
        return _apart(found)
    if found[0] in ("指导意见，", "指导意见,") or after in _CARRIES_ON:
        return "，"
    if before[-1] in "吗呢":
        return "？"
    return _stop(found) if _OF_A_QUESTION.match(found[0]) and "未" not in before[-10:] else "。"


def _parted(found: re.Match[str]) -> str:
    """Returns the mark that parts two sentences where a greeting stood between them."""
    # Behind a title, whom it asks: 结果刘主任您好请问
    return found[1] or ("，" if _TITLE.search(_before(found)) else _stop(found))


def _pleaded(found: re.Match[str]) -> str:
    """Returns the mark before a plea between two sentences, or one that ends the first."""
    return _stop(found) if found[1] == "，" else found[1]


def _titled(found: re.Match[str]) -> str:
    """Returns the same where what follows the plea stands before it too, else all of it."""
    return _pleaded(found) if found[2] in found.string[: found.start()] else found[0]


def _thanked(found: re.Match[str]) -> str:
    """Returns the mark that parts two sentences where thanks stood between them."""
    before = _before(found)
    return "" if not before or before[-1] in ENDS else _stop(found)


def _before(found: re.Match[str]) -> str:
    return found.string[max(0, found.start() - 10) : found.start()]


def _stop(found: re.Match[str]) -> str:
    """Returns the mark that ends the sentence before: a question's, where it asks."""
    return "？" if _ASKING.search(_before(found)) else "。"


def _without_closing(found: re.Match[str]) -> str:
    """Returns the mark that ends what stood before a closing."""
    before, cut = found.string[: found.start()], found[0]
    if not before or before[-1] in ENDS + ".：:“（" or before.rstrip("）)”’")[-1:] in ENDS:
        return _apart(found)
    follows = found.end() < len(found.string) and found.string[found.end()] != "\n"
    return "，" if follows and cut[0] in "，,、" and cut[-1] in "，,、" else "。"


def _apart(found: re.Match[str]) -> str:
    """Returns a blank where ``1.`` and ``3天`` would become ``1.3天``, else nothing."""
    before = found.string[max(0, found.start() - 1) : found.start()]
    after = found.string[found.end() : found.end() + 1]
    return " " if before and before in ".:,/-~%0123456789" and after.isdigit() else ""
