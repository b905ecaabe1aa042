"""Rules that leave a pair out: each says of a cleaned question and answer whether it objects.

The name of a rule is the reason in the list of rejects. Cheap checks come first in each.
The module is long because of its word lists: animals, their illnesses, and what advertises.
"""

import re

from medqa.data.courtesies import EMPTY_FORM
from medqa.data.normal import canonical, normalise
from medqa.data.triggers import BLANKS, EDGE, woken_by

# Possessive: with plain repeats, twenty links and a Chinese character took 12 seconds.
LINKS = re.compile(
    r"(?:[<(\"']*+(?:(?:https?|ftp):)?(?://|www\.)[\x21-\x7e]++\s*+)++", re.IGNORECASE
)
_STARTS = "<(\"'hHfFwW/"
_LINK_STARTS = frozenset(_STARTS)


@woken_by(f"{EDGE}[{BLANKS}{_STARTS}]")  # also where blanks are yet to go
def url_answer(question: str, answer: str) -> bool:
    """The answer is nothing but links, as in all but five rows of huatuo_consultation_qa."""
    return answer[:1] in _LINK_STARTS and LINKS.fullmatch(answer) is not None


_OPEN_ENDS = ("，", ",", "、", "：", ":", "（", "(", "【", "[", "《", "“", "‘")


@woken_by(*(f"{mark}{EDGE}" for mark in _OPEN_ENDS))
def truncated_answer(question: str, answer: str) -> bool:
    """The answer breaks off: it ends in a comma, a colon or an opening bracket.

    Real: ``…建议用豆奶代替，``, ``过敏少见（``, ``可大致分为三个阶段：``.
    """
    return answer.endswith(_OPEN_ENDS)


@woken_by(*(f"{mark}{EDGE}" for mark in "：:"))  # in the question
def empty_form(question: str, answer: str) -> bool:
    """The question is a form with nothing filled in: ``患者性别：患者年龄：问题描述：``."""
    return question[-1:] in "：:" and EMPTY_FORM.fullmatch(question) is not None


def echo_answer(question: str, answer: str) -> bool:
    """The answer only says the question again.

    ``孕妇可以吃螃蟹`` answers ``孕妇可以吃螃蟹吗`` and stays; so does a choice that is repeated.
    """
    if len(answer) > 2 * len(question) + 20 or (
        answer[:2] not in question and question[:2] not in answer
    ):
        return False
    key, asked = normalise(answer), normalise(question)
    if key == asked or (asked and len(asked) >= 4 and not key.replace(asked, "")):
        return True
    if not _ASKS.search(key):
        return False
    said = canonical(answer)
    return said == canonical(question) or (len(said) >= 6 and said in asked and key[-4:] in asked)


_ASKS = re.compile(
    "怎么|怎样|什么|如何|为何|哪|多少|多久|几|吗$|呢$|么$|能不能|是不是|会不会|可不可以|有没有"
)

# --- off topic --------------------------------------------------------------------------------

_BREED = (
    "泰迪|金毛|哈士奇|比熊|博美|吉娃娃|柯基|边牧|德牧|雪纳瑞|阿拉斯加|萨摩耶?|拉布拉多|拉拉犬|"
    "松狮|巴哥|法斗|斗牛犬|"
    "贵宾犬?|贵妇犬|京巴|藏獒|柴犬|罗威纳|牧羊犬|布偶|英短|美短|加菲猫|暹罗猫?|蓝猫|橘猫|波斯猫|"
    "折耳猫|土狗|土猫"
)
_PETS = (
    f"狗狗|小狗|大狗|狗崽|幼犬|母犬|公犬|成犬|犬只|爱犬|母狗|公狗|猫咪|小猫|大猫|幼猫|母猫|"
    f"公猫|猫猫|喵星人|汪星人|"
    f"仓鼠|荷兰猪|龙猫|兔兔|兔子|小兔|宠物兔|鹦鹉|乌龟|宠物|{_BREED}|狗|猫|犬"
)
_PET = f"(?:{_PETS})"
_FARMED = (
    "母猪|仔猪|小猪|猪仔|育肥猪|奶牛|母牛|牛犊|小牛|母羊|小羊|羊羔|羔羊|"
    "雏鸡|小鸡仔?|蛋鸡|肉鸡|鸡苗|鸭苗|雏鸭"
)
_FARM = f"(?:{_FARMED})"
# A character of every word for an animal above; most questions hold none.
_ANIMALS = "[狗猫犬兔鼠猪牛羊鸡鸭龟宠鹦兽泰金哈熊博娃柯牧雪阿萨拉狮巴斗贵獒罗偶英短]"
_ANIMAL_HINT = re.compile(_ANIMALS)
# Each pattern of animals below wants one of these.
_ANIMAL = re.compile(f"{_PETS}|{_FARMED}|兽医|动物医院|猪场")
_ILL = (
    r"(?:吐|拉稀|拉肚子|拉血|腹泻|便血|便秘|尿血|血尿|不吃|没食欲|食欲|吃什么药|不喝|没精神|"
    r"精神(?:不|差|萎靡)|发烧|发热|感冒|咳嗽|流鼻涕|打喷嚏|"
    r"掉毛|脱毛|皮肤病|真菌|螨虫|耳螨|驱虫|绝育|配种|发情|生产|难产|下崽|产崽|产后|怀孕|怀崽|"
    r"疫苗|打针|输液|生病|得了|骨折|瘸|抽搐|抽筋|"
    r"流口水|流眼泪|眼屎|眼睛|耳朵|犬瘟|猫瘟|细小|冠状|猫鼻支|猫传腹|肾衰|胰腺炎|肠炎|胃炎|感染|"
    r"中毒|受伤|起疙瘩|长(?:了|疙瘩)|肿|皮屑|瘙痒|"
    r"一直(?:叫|抖)|发抖|不能走|站不起来|快死|死了|老了|多大|几个月|个月(?:了|大)|体温|"
    r"怎么(?:喂|养|洗澡)|吃了|误食|肚子(?:大|胀|鼓))"
)
_PET_ILL = re.compile(
    rf"(?<!属)(?:{_PET}|{_FARM})(?!咬|抓|挠|舔|毛|肉|粮|癣|爪|眼疮|叫综合|叫征|尾草|脊|皮膏|屎|"
    rf"须|砂|人)"
    rf"(?:(?!咬|抓|挠|舔|传染|传给|过敏|宝宝|孩子|小孩|婴儿|老人|孕妇|我|人|儿子|女儿|老公|老婆|"
    rf"妈妈|爸爸)"
    rf"[^。！？?!；\n]){{0,16}}?{_ILL}"
)
_OWN_PET = re.compile(
    rf"(?:我家|我们家|家里|家中|自家|我的|我养的?|家养的?)(?:里|有|的|养)*(?:一)?(?:只|条|个|头|"
    rf"窝)?(?:{_PET}|{_FARM})"
    rf"(?!咬|抓|挠|舔|毛|肉|癣|爪)"
)
_VETERINARY = re.compile(
    "犬瘟|猫瘟|猫鼻支|猫传腹|犬细小|兽医|宠物医院|动物医院|幼犬|母犬|公犬|成犬|狗瘟|犬窝咳|"
    "猫藓怎么治猫|仔猪|母猪|猪场|雏鸡|鸡苗"
)
# A person is the patient: bitten, scratched, allergic, infected, afraid, or has eaten something.
_PERSON = re.compile(
    rf"被[^，。！？,\n]{{0,10}}(?:{_PET}|{_FARM})|(?:让|给|叫|遭|"
    rf"挨)[^，。！？,\n]{{0,6}}{_PET}[^，。！？,\n]{{0,6}}(?:咬|抓|挠|舔|爪|撞|踢|扑|蹭|碰)"
    rf"|{_PET}[^，。！？,\n]{{0,8}}(?:咬|抓|挠|舔|爪|扑|蹭)(?:了|到|伤|破|过|着)*(?:我|人|一口|"
    rf"一下|手|脚|腿|脸|胳膊|孩子|小孩|宝宝|儿子|女儿|老公|老人|妈妈|爸爸)"
    rf"|{_PET}(?:咬|抓|挠|舔|爪)(?:了|伤|破|到|过)"
    r"|(?:对|因为?)(?:猫|狗|宠物|猫毛|狗毛)[^，。]{0,6}过敏|(?:猫|狗|宠物|动物)(?:毛发?|"
    r"皮屑)过敏|宠物过敏|狂犬|破伤风|弓形虫|弓形体|猫抓病|猫抓热|包虫病|鼠疫|"
    r"传染(?:给)?(?:人|我|孩子|宝宝|小孩|孕妇|主人|大人|家人)|传给(?:人|我|孩子|宝宝)|会传染吗|"
    r"人畜|"
    r"(?:孕妇|怀孕|孕期|备孕|宝宝|孩子|小孩|婴儿|新生儿|老人|哮喘|鼻炎|我|"
    r"人)[^。！？\n]{0,12}(?:能|可以|可不可以|能不能|适合)?(?:养|接触|摸|抱|碰|吃)(?:了|过|着|"
    r"到|的)*[^。！？，,\n]{0,6}(?:猫|狗|宠物|兔|仓鼠|鹦鹉|乌龟|犬|鸡|鸭|猪|牛|羊)"
    r"|(?:猫|狗)(?:肉|皮膏|脊|尿苔|眼疮|叫综合征|爪草|须草)|怕(?:猫|狗)|热狗|海狗|天狗|(?:误食|"
    r"误吃|吃了)[^，。]{0,6}(?:猫粮|狗粮|仓鼠)"
)
# The animal is the patient even though a bite or a vaccine is mentioned.
_PET_PATIENT = re.compile(
    rf"{_PET}(?:被|让)[^，。！？\n]{{0,8}}(?:咬|抓|撞|压|砸|踢|打)|(?:给|"
    rf"帮){_PET}[^，。！？\n]{{0,8}}(?:打|吃|喂|用|洗|驱虫|注射|接种)|(?:兽医|宠物医院|动物医院)"
)


@woken_by(_ANIMALS)  # in the question
def off_topic(question: str, answer: str) -> bool:
    """An animal is the patient: ``我家金毛最近两天不吃不喝``. Bitten or allergic people stay.

    Real: ``狗狗三个月左右大了，前两周第一次驱虫`` goes;
    ``被自家猫抓伤狂犬疫苗只打了2针有用吗`` stays.
    """
    if not _ANIMAL_HINT.search(question) or not _ANIMAL.search(question):
        return False
    if _PET_PATIENT.search(question):
        return True
    if _PERSON.search(question):
        return False
    if _VETERINARY.search(question) or _PET_ILL.search(question):
        return True
    return bool(_OWN_PET.search(question) and _VET_ANSWER.search(answer))


_VET_ANSWER = re.compile("兽医|宠物医院|宠物店|动物医院|狗狗|猫咪|犬瘟|猫瘟")

# --- advertisements ---------------------------------------------------------------------------

# Words without one of which an answer is taken for no advertisement, whatever else it says.
# Each is sought by a rare character that its alternative begins with, for the speed of the search.
_AD_HINT = re.compile(
    "击(?<=点击)|线(?<=[在热专]线)|按(?=动|钮)|详(?=情)|网(?=站|址)|网(?<=官网)|页(?<=主页)|"
    "页(?=面)|免(?=费)|注(?<=关注)(?=我|医)|信(?<=[微V]信)|Q(?=Q)|扣(?=扣)|众(?<=公众)(?=号)|"
    "维(?<=二维)(?=码)|加(?=我)|图(?=标)|框(?<=对话框)|片(?<=名片)|院(?<=[我本]院)|"
    "们(?<=我们)(?=医院|中心|这|科)|系(?<=我联系)|系(?<=们联系)|处(?<=我处)|"
    "中(?<=本中)(?=心)|科(?<=我科)|签(?=约治)|退(?<=无效退)|"
    "退(?<=治不好退)|费(?<=不收费)|秘(?=方)|包(?=治)|证(?<=保证)(?=治|根治)|"
    "国(?<=全国)(?=知名|著名|最大|前列|唯一|领先)|国(?=内知名|内领先|内一流|际先进|际领先)|"
    "居(?=全国|国内)|誉(?<=享誉)|首(?=家|创)|唯(?=一一家)|牌(?<=品牌)(?=医院)|定(?=点医院)|"
    "专(?<=重点专)(?=科)|居(?<=位居)|列(?<=名列)|率(?<=治愈率)|率(?<=有效率)|率(?<=治疗率)|"
    "供(?<=长期供)(?=求)|独(?=创|家)|引(?=进)|团(?=队)|诊(?<=[亲坐]诊)|迎(?<=欢迎)|"
    "我(?=的?(?:门诊|专家号|号|出诊))|号(?<=加号)"
)
_NUMBER_HINT = re.compile(r"[0-9](?:\d{6}|\d{0,4}[- ]\d{3})")  # in each `_PHONE`
_PHONE = (
    r"(?:\[(?:电话|QQ|微信)\]|(?<!\d)(?:1[3-9]\d{9}|0\d{2,3}[- ]?\d{7,8}|"
    r"[48]00[- ]?\d{3,4}[- ]?\d{3,4})(?!\d))"
)
_CONTACT = re.compile(
    rf"(?:热线|电话|手机|咨询|拨打|致电|联系|预约|微信|加我|扣扣|QQ|qq|详情|来电|"
    rf"客服)[^。！？\n]{{0,20}}{_PHONE}"
    rf"|{_PHONE}[^。！？\n]{{0,12}}(?:咨询|联系|预约|热线|详谈|了解|免费|微信|来电|订购|加我)"
)
_HELPLINE = re.compile(
    "自杀|轻生|自残|心理援助|心理危机|卫生热线|12320|12356|希望24|急救电话|中毒急救|疾控中心电话"
)
_CLICK = re.compile(
    r"点击(?:在线|左侧|右侧|左边|右边|下方|上方|下面|上面|页面|此处|这里|网站|链接|咨询|"
    r"我(?!们的?建议)|头像|医生头像|图标|进入|免费|预约)"
    r"|(?:左侧|右侧|上方|下方|页面|右下角|左下角)[^。！？\n]{0,8}(?:咨询|图标|按钮|窗口|对话框|"
    r"电子名片)"
    r"|在线(?:专家|客服)|(?:点击|进行|通过|联系)(?:我们|我院|本院)?在线(?:进行)?(?:咨询|交谈|"
    r"医生|预约)|按动[^。]{0,4}咨询"
    r"|详情(?:请|可|可以)?(?:点击|咨询|拨打|登[录陆]|致电|来电|关注|加)|(?:登[录陆]|访问|浏览|"
    r"进入?|查看)(?:我们|我院|本院|医院|医生)[^。！？\n]{0,10}(?:网站|网址|官网|主页|页面)"
    r"|免费(?:在线)?(?:咨询|预约|通话|电话|热线|专线|回电|会诊|专车)|(?:可以|请|欢迎|记得|"
    r"点)(?:点击)?关注我(?!国|们国|的情况)|(?:加|扫|搜索?|关注)(?:我的?|我们的?|医生)?(?:微信|"
    r"QQ|扣扣|公众号|二维码|V信)"
    r"|(?:请|可以?|欢迎|及时|随时|直接)(?:您|你)?[与和跟同](?:我|我们|本人)联系"
    r"|(?:来|到)我处(?:就诊|治疗|看)"
    r"|(?:相信我的[^。，]{0,6})?加我(?:扣|微|V|QQ|的)|公众号[：:“]|微信号?[：:]|"
    r"预约(?:专家)?(?:热线|专线|挂号(?:热线|电话[：:]))|咨询(?:热线|专线)|健康热线|"
    r"24小时(?:热线|咨询|在线)|全国(?:免费|统一)"
)
_OURS = re.compile(
    r"(?:我院|本院|我们医院|我们中心|本中心|我科|我们科室?)[^。！？\n]{0,24}(?:引进|采用|独创|"
    r"独家|首创|研制|专利|特色|治愈率|有效率|专家团队|先进|欢迎|成功|治愈|"
    r"专业治疗|专科|疗效|知名|权威|技术|疗法|邀请|优惠|预约)"
    r"|(?:医院|中心|门诊|专科)欢迎(?:您|你|广大患者)?(?:前来|来|到)|欢迎(?:您|你)?(?:前来|来电|"
    r"来院)(?:就诊|预约)"
    r"|(?:欢迎|建议|推荐|可以)(?:您|你)?(?:来|到|前来)(?:我院|本院|我们医院|我们中心|本中心|我们这)"
    r"|(?:签约治疗|无效退款|不好不收费|无效不收费|祖传秘方|家传秘方|(?<!相信)包治(?!百病的)|"
    r"保证根治|保证治好|治不好退)"
    r"|(?:医院|中心|研究院|门诊部?)[^，。！？\n]{0,16}(?:是(?:一家|一所)?|"
    r"在[^，。]{0,16}领域)[^。！？\n]{0,20}(?:全国(?:知名|著名|最大|前列|唯一|领先)|国内(?:知名|"
    r"领先|一流)|国际(?:先进|领先)|享誉|首家|唯一一家|定点医院|品牌医院|重点专科医院)"
    r"|长期供求"
    r"|(?:位居|名列|处于|居)(?:全国|国内|国际)(?:前列|领先|首位)|(?:医院|"
    r"中心)[^，。！？\n]{0,10}(?:治愈率|有效率|治疗率)(?:高达|达到?|为|在)"
    r"|(?:医院|中心)(?:独创|独家|首创|引进|采用|研发|自主)[^。！？\n]{0,24}(?:疗法|技术|系统|"
    r"设备|仪器|体系)"
    r"|(?:专家|教授|主任)(?:团队|亲诊|坐诊)[^。！？\n]{0,14}(?:欢迎|预约|咨询)"
    r"|(?:来|看|挂|到|约)我的?(?:门诊|专家号|号(?![称召]))|我的?(?:门诊|出诊|坐诊)时间|(?:找|给)[我你您]加号"
)


# Of a number as `_NUMBER_HINT` knows them: patterns take the digits of every script for digits.
_DIGITS = "".join(filter(str.isdecimal, map(chr, range(1 << 16))))
_NEXT_DIGIT = f"[{_DIGITS} -]"


@woken_by(  # in the answer
    "[",
    f"[0-9]{_NEXT_DIGIT}{_NEXT_DIGIT}{_NEXT_DIGIT}",
    "点击",
    "[在热专]线",
    "按[动钮]",
    "详情",
    "网[站址]",
    "官网",
    "主页",
    "页面",
    "免费",
    "关注[我医]",
    "[微V]信",
    "QQ",
    "扣扣",
    "公众号",
    "二维码",
    "加我",
    "图标",
    "对话框",
    "名片",
    "[我本]院",
    "我们[医中这科]",
    "[我们][联处]",
    "本中心",
    "我科",
    "签约治",
    "无效退",
    "治不好退",
    "不收费",
    "秘方",
    "包治",
    "保证[治根]",
    "全国[知著最前唯领]",
    "国[内际][知领一先]",
    "居[全国][国内]",
    "享誉",
    "首[家创]",
    "唯一一家",
    "品牌医院",
    "定点医院",
    "重点专科",
    "位居",
    "名列",
    "治愈率",
    "有效率",
    "治疗率",
    "独[创家]",
    "引进",
    "团队",
    "[亲坐]诊",
    "欢迎",
    "长期供求",
    "我[门专号出]",
    "我的[门专号出]",
    "加号",
)
def advertisement(question: str, answer: str) -> bool:
    """The answer advertises: a number to call, ``点击左侧咨询``, ``我院引进…``, ``位居全国前列``.

    Ordinary advice (``到正规医院就诊``) and emergency or crisis lines stay. Real:
    ``详情请点击左侧闪动的咨询按钮与我联系``, ``治疗率位居全国前列``.
    """
    if _AD_HINT.search(answer) and (_CLICK.search(answer) or _OURS.search(answer)):
        return True
    if "[" not in answer and not _NUMBER_HINT.search(answer):
        return False
    return _CONTACT.search(answer) is not None and not _HELPLINE.search(answer)
