"""The page in a real browser: what people do with it, and what may not happen to them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import chromium
from tests.serve.parrot import serving
from tests.serve.standin import DISCLAIMER, DOSE, EMERGENCY, KEY, Standin, served, standin

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
TRICK = "<img src=x onerror=alert(1)><script>alert(2)</script>"

CONTRAST = """
  const channel = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    throw new Error("no background");
  };
  const contrast = (a, b) => {
    const [dark, bright] = [light(a), light(b)].sort((x, y) => x - y);
    return (bright + 0.05) / (dark + 0.05);
  };
"""
# The contrast of every piece of text that is shown (WCAG 2.2, 1.4.3), worst first.
CONTRASTS = f"""() => {{ {CONTRAST}
  const found = [];
  for (const e of document.querySelectorAll("body *")) {{
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!(own || e.placeholder) || !e.checkVisibility() || e.closest(".unseen, noscript")) continue;
    if (e.disabled) continue;
    const colour = parse(getComputedStyle(e, own ? null : "::placeholder").color);
    found.push([contrast(colour, ground(e)), e.textContent.trim() || e.placeholder]);
  }}
  return found.sort((x, y) => x[0] - y[0]);
}}"""
# That of the question box's edge to what is around it.
EDGE = f"""() => {{ {CONTRAST}
  const box = document.getElementById("composer");
  return contrast(parse(getComputedStyle(box).borderTopColor), ground(box.parentElement));
}}"""


@dataclass
class Visit:
    """A browser tab on the page, and all that went wrong in it."""

    page: "Page"
    address: str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def find(self, selector: str) -> "Locator":
        return self.page.locator(selector)

    def ask(self, question: str, side: str | None = None) -> None:
        """Asks, and waits for the end of the answer."""
        self.begin(question, side)
        self.find("#send").wait_for()

    def begin(self, question: str, side: str | None = None) -> None:
        if side:
            self.find(f"label:has(input[value={side}])").click()
        self.find("#question").fill(question)
        self.find("#question").press("Enter")

    def texts(self, selector: str) -> list[str]:
        found = self.find(f"{selector} >> visible=true").all_inner_texts()
        return [text.strip() for text in found if text.strip()]

    def focused(self) -> str:
        script = "() => document.activeElement.id || document.activeElement.textContent"
        return self.page.evaluate(script)


Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def running() -> Iterator[Standin]:
    with served(standin()) as started:
        yield started


@pytest.fixture
def server(running: Standin) -> Standin:
    running.requests.clear()
    running.left.clear()
    running.go_on.clear()
    return running


@pytest.fixture
def visit(browser: "Browser", server: Standin) -> Iterator[Open]:
    """Opens tabs; in the end none of them may have erred or asked anybody but our server."""
    opened: list[Visit] = []
    with ExitStack() as stack:

        def start(at: str = server.address, script: str = "", **options: Any) -> Visit:
            context = browser.new_context(**({"locale": "zh-CN"} | options))
            stack.callback(context.close)
            context.set_default_timeout(30_000)
            page = context.new_page()
            new = Visit(page, at)
            opened.append(new)
            page.on("request", lambda request: new.requests.append(request.url))
            page.on("pageerror", lambda error: new.errors.append(str(error)))
            page.on(
                "console",
                lambda said: new.errors.append(said.text) if said.type != "log" else None,
            )
            page.on("dialog", lambda dialog: new.errors.append(f"dialog: {dialog.message}"))
            page.add_init_script(
                "addEventListener('securitypolicyviolation', "
                f"(event) => console.error('policy', event.blockedURI)); {script}"
            )
            page.goto(at)
            new.find("#examples button").first.wait_for()
            return new

        yield start
        for one in opened:
            # The browser notes every answer that is no success, also the expected ones.
            assert [e for e in one.errors if not e.startswith("Failed to load resource")] == []
            assert one.requests
            assert {u for u in one.requests if not u.startswith(one.address)} == set()


def test_question_gets_its_answer(visit: Open, server: Standin) -> None:
    tab = visit()
    assert tab.focused() == "question"
    assert tab.texts("#disclaimer") == [DISCLAIMER]
    tab.ask("  阿司匹林吃多少？ ")
    assert tab.texts(".question") == ["阿司匹林吃多少？"]
    assert tab.texts(".answer .text") == ["medqa-test对「阿司匹林吃多少？」的回答。"]
    assert tab.texts(".notes p") == [DOSE]  # the disclaimer stands below at all times
    assert tab.find(".emergency").is_hidden()
    assert tab.texts(".note") == []
    assert tab.find("#said").inner_text() == "medqa-test对「阿司匹林吃多少？」的回答。 回答完毕。"
    size = "() => performance.getEntries().reduce((sum, e) => sum + (e.transferSize ?? 0), 0)"
    assert 20_000 < tab.page.evaluate(size) < 60_000
    assert server.requests == [
        {
            "model": "medqa-test",
            "messages": [{"role": "user", "content": "阿司匹林吃多少？"}],
            "stream": True,
        }
    ]


def test_stop_keeps_the_text_so_far(visit: Open, server: Standin) -> None:
    tab = visit(reduced_motion="reduce")
    for stop in (tab.find("#stop").click, lambda: tab.page.keyboard.press("Escape")):
        server.left.clear()
        tab.begin("说个没完")
        tab.find(".turn:last-child .text:has-text('med')").wait_for()
        assert tab.find(".turn:last-child .text").get_attribute("aria-busy") == "true"
        assert tab.page.evaluate("() => document.getAnimations().length") == 0
        stop()
        tab.find(".turn:last-child .note:has-text('已停止')").wait_for()
        assert server.left.wait(5), "the server still writes"
        assert tab.focused() == "question"
    tab.ask("再来")
    assert tab.texts(".text") == ["med", "med", "medqa-test对「再来」的回答。"]


@pytest.mark.parametrize("clipboard", [True, False])
def test_copy_takes_the_warnings_along(visit: Open, clipboard: bool) -> None:
    hide = "Object.defineProperty(navigator, 'clipboard', { value: undefined })"
    tab = visit(script="" if clipboard else hide, permissions=["clipboard-read", "clipboard-write"])
    tab.ask("胸痛，药吃多少")
    tab.find(".answer button").click()
    tab.find("button:text-is('已复制')").wait_for()
    tab.find("#question").focus()
    tab.page.keyboard.press("Control+v")
    answer = "medqa-test对「胸痛，药吃多少」的回答。"
    copied = tab.find("#question").input_value()
    assert copied == "\n\n".join((EMERGENCY, answer, DOSE, DISCLAIMER))


def test_base_tuned_side_by_side(visit: Open, server: Standin) -> None:
    tab = visit()
    tab.ask("甲", "base")
    tab.ask("乙", "both")
    assert tab.texts(".answer h3") == [
        "训练前 medqa-test-base",
        "训练前 medqa-test-base",
        "训练后 medqa-test",
    ]
    assert [r["model"] for r in server.requests[:1]] == ["medqa-test-base"]
    assert {r["model"] for r in server.requests[1:]} == {"medqa-test", "medqa-test-base"}
    left, right = (box.bounding_box() for box in tab.find(".two .answer").all())
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    tab.begin("没完")
    for side in ("base", "tuned"):  # both at once: neither ends
        tab.find(f".turn:last-child .{side} .text:has-text('med')").wait_for()
    tab.find("#stop").click()
    assert tab.find(".turn:last-child .note:has-text('已停止')").count() == 2
    tab.page.reload()
    tab.find("input[value=both]:checked").wait_for(state="attached")  # page.json comes later


def test_one_model_has_no_switch(visit: Open) -> None:
    with served(standin(models={"only": "tuned"})) as server:
        tab = visit(server.address)
        assert tab.find("#sides").is_hidden()
        tab.ask("问")
        assert tab.texts(".answer h3") == ["训练后 only"]


def test_example_is_asked_by_one_click(visit: Open) -> None:
    tab = visit()
    assert 4 <= len(tab.texts("#examples button")) <= 6
    example = tab.texts("#examples button")[0]
    tab.find("#examples button").first.click()
    tab.find(f".text:has-text('{example}')").wait_for()
    assert tab.texts(".question") == [example]
    assert tab.find("#examples").is_hidden()
    assert tab.focused() == "question"


def test_history_of_this_visit(visit: Open) -> None:
    tab = visit()
    tab.ask("第一个问题")
    tab.ask("还有呢")
    tab.find("#new").click()
    assert tab.find(".turn").count() == 0 and tab.find("#examples").is_visible()
    tab.ask("第二个问题")
    tab.page.reload()
    assert tab.texts(".question") == ["第二个问题"]
    tab.find("#earlier").click()
    assert tab.texts("#visit li") == ["第二个问题\n1 个问题", "第一个问题\n2 个问题"]
    tab.find("#visit li button").nth(1).click()
    assert tab.texts(".question") == ["第一个问题", "还有呢"]
    assert tab.texts(".text")[0] == "medqa-test对「第一个问题」的回答。"
    tab.find("#earlier").click()
    tab.find("#clear").click()
    assert tab.find(".turn").count() == 0
    tab.find("#earlier").click()
    assert tab.texts("#visit li") == ["还没有对话。"]
    tab.page.keyboard.press("Escape")
    assert tab.find("#visit").is_hidden()
    tab.page.reload()
    assert tab.find(".turn").count() == 0
    assert visit().find(".turn").count() == 0, "another visit knows of this one"


def test_answer_under_way_at_a_reload_can_be_asked_for_again(visit: Open) -> None:
    tab = visit()
    tab.begin("没完")
    tab.find(".text:has-text('med')").wait_for()
    tab.page.reload()
    tab.find(".note:has-text('连接中断')").wait_for()
    assert tab.texts(".text") == ["med"]
    assert tab.find("button:text-is('重试')").is_enabled()


def test_emergency_stands_first_and_once(visit: Open) -> None:
    tab = visit()
    for question in ("突然胸痛", "胸痛，服务器正忙"):  # the second gets a notice and no answer
        tab.find("#new").click()
        tab.ask(question, "both")
        alert = tab.page.get_by_role("alert")
        assert alert.count() == 1
        assert EMERGENCY in alert.inner_text()
        assert {a.get_attribute("href") for a in alert.locator("a").all()} == {"tel:120"}
        assert alert.bounding_box()["y"] < tab.find(".answers").bounding_box()["y"]
    tab.page.reload()
    tab.find(".emergency:has-text('120')").wait_for()
    assert tab.page.get_by_role("alert").count() == 0  # told before; not again
    tab.begin("胸痛，滔滔不绝", "tuned")
    tab.find(".turn:last-child .text:has-text('59 60')").wait_for()
    assert tab.find(".turn:last-child .emergency").bounding_box()["y"] >= 0, "out of sight"
    tab.find("#stop").click()


WRONG = {
    "正忙": "服务器正忙，请在 7 秒后重试。",
    "太大": "请求太长，服务器没有接受。请缩短问题或开始新对话。",
    "不收": "服务器没有接受这个请求。\nmessages: too many",
    "断线": "连接中断，回答不完整。",
    "无尾": "连接中断，回答不完整。",
    "故障": "服务器出错了。可以重试；若反复出现，请查看它的日志。\nout of memory",
    "很长": "已到长度上限，回答没有写完。",
}


def test_what_goes_wrong_is_said_in_words(visit: Open) -> None:
    tab = visit()
    for question, said in WRONG.items():
        tab.ask(question)
        assert tab.texts(".turn:last-child .note") == [said]
    tab.ask("好的")
    assert tab.texts(".turn:last-child .text") == ["medqa-test对「好的」的回答。"]


def test_only_the_failed_side_is_asked_again(visit: Open, server: Standin) -> None:
    tab = visit()
    tab.ask("断线", "both")
    assert tab.texts(".base .note") == [] and len(tab.texts(".tuned .note")) == 1
    server.requests.clear()
    tab.find("button:text-is('重试')").click()
    tab.find("#send").wait_for()
    assert [request["model"] for request in server.requests] == ["medqa-test"]


def test_server_that_is_gone(visit: Open) -> None:
    with served(standin()) as server:
        tab = visit(server.address)
    tab.ask("还在吗")
    assert tab.texts(".note") == ["连不上服务器。请确认它还在运行，网络是否通畅。"]
    assert tab.find("button:text-is('重试')").is_enabled()


def test_key_is_asked_for_and_kept_in_memory_only(visit: Open) -> None:
    with served(standin(needs_key=True)) as server:
        tab = visit(server.address)
        assert tab.find("#key").is_visible()
        tab.find("#secret").fill("wrong")
        tab.find("#secret").press("Enter")
        tab.ask("开门")
        assert tab.texts(".note") == ["需要正确的访问密钥，请在下方输入。"]
        assert tab.focused() == "secret"
        tab.find("#secret").fill(KEY)
        tab.find("#secret").press("Enter")
        tab.find(".text:has-text('回答。')").wait_for()
        assert tab.find("#key").is_hidden()
        stores = "() => JSON.stringify([sessionStorage, localStorage, document.cookie])"
        kept = tab.page.evaluate(stores)
        assert "开门" in kept and KEY not in kept


def test_follow_up_takes_the_conversation_along(visit: Open, server: Standin) -> None:
    tab = visit()
    tab.ask("胸痛")
    tab.ask("正忙")  # gets no answer, and was said all the same
    tab.ask("然后呢", "base")
    assert server.requests[-1]["messages"] == [
        {"role": "user", "content": "胸痛"},
        {"role": "assistant", "content": "medqa-test对「胸痛」的回答。"},
        {"role": "user", "content": "正忙"},
        {"role": "user", "content": "然后呢"},
    ]
    tab.ask("第三问")
    assert tab.texts(".turn:last-child .notes p") == []
    tab.ask("第四问")  # with all before it 8 messages, of at most 7
    assert len(server.requests[-1]["messages"]) == 6
    said = "对话太长，最早的 {} 个问题没有一并发给模型。"
    assert tab.texts(".turn:last-child .notes p") == [said.format(1)]
    tab.ask("长" * 150)  # of 200 characters
    assert len(server.requests[-1]["messages"]) == 3
    tab.find("#new").click()
    for question in ("甲", "乙", "短"):  # the last is refused with more than 3 messages
        tab.ask(question)
    assert [len(request["messages"]) for request in server.requests[-2:]] == [5, 3]
    assert tab.texts(".turn:last-child .text") == ["medqa-test-base对「短」的回答。"]
    assert tab.texts(".turn:last-child .notes p") == [said.format(1)]


def test_too_long_a_question_stays_in_the_box(visit: Open, server: Standin) -> None:
    tab = visit()
    tab.begin("😀" * 201)  # characters as the server counts them
    assert tab.texts("#count") == ["问题太长：201 字，最多 200 字"]
    assert server.requests == [] and tab.find("#question").input_value()
    tab.ask("😀" * 200)
    assert server.requests[0]["messages"][0]["content"] == "😀" * 200


def test_markup_is_shown_as_text(visit: Open) -> None:
    tab = visit()
    tab.ask(TRICK)
    assert tab.texts(".question") == [TRICK]
    assert TRICK in tab.texts(".text")[0]
    assert tab.find("#turns img, #turns script").count() == 0
    tab.find("#earlier").click()
    assert tab.find("#visit img, #visit script").count() == 0


def test_enter_while_a_character_is_being_chosen(visit: Open, server: Standin) -> None:
    tab = visit()
    typing = tab.page.context.new_cdp_session(tab.page)
    typing.send(
        "Input.imeSetComposition", {"text": "gan'mao", "selectionStart": 7, "selectionEnd": 7}
    )
    assert tab.find("#question").input_value() == "gan'mao"
    tab.page.keyboard.press("Enter")
    typing.send("Input.insertText", {"text": "感冒"})
    # Safari ends the composition first and marks the key by its code alone.
    tab.page.evaluate(
        "() => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', "
        "{ key: 'Enter', keyCode: 229, bubbles: true }))"
    )
    assert tab.find(".turn").count() == 0
    tab.page.keyboard.press("Shift+Enter")
    tab.page.keyboard.insert_text("流感")
    tab.page.keyboard.press("Enter")
    tab.find(".turn").wait_for()
    tab.find("#send").wait_for()
    assert [r["messages"][-1]["content"] for r in server.requests] == ["感冒\n流感"]


def test_by_keyboard_alone(visit: Open) -> None:
    tab = visit()
    keys = tab.page.keyboard
    examples = tab.texts("#examples button")
    order = [tab.focused()]
    for _ in range(4):
        keys.press("Tab")
        order.append(tab.focused())
    assert order == ["question", "", "send", "120", examples[0]]  # "": the radio group
    for _ in range(3):
        keys.press("Shift+Tab")
    keys.press("ArrowRight")
    assert tab.find("input:checked").get_attribute("value") == "both"
    keys.press("Shift+Tab")
    keys.insert_text("没完")
    keys.press("Enter")
    tab.find(".tuned .text:has-text('med')").wait_for()
    keys.press("Tab")
    keys.press("Tab")
    assert tab.focused() == "stop"
    ring = tab.find("#stop").evaluate("(e) => getComputedStyle(e).outlineStyle")
    assert ring == "solid"
    keys.press("Enter")
    tab.find(".tuned .note:has-text('已停止')").wait_for()
    for expected in ("重新回答", "复制", "复制", "language", "earlier"):
        keys.press("Shift+Tab")
        assert tab.focused() == expected
    keys.press("Enter")
    tab.find("#visit").wait_for()
    keys.press("Escape")
    assert tab.focused() == "earlier"


def test_language(visit: Open) -> None:
    tab = visit(locale="en-US")
    assert tab.find("html").get_attribute("lang") == "en"
    tab.ask("hello", "both")
    tab.find("#earlier").click()
    assert tab.texts(".notes p") == [DISCLAIMER]  # in the answer's language, not in the page's
    own = tab.texts("header small, nav button, #visit, #composer, .actions button, h3")
    assert "History" in own
    assert [text for text in own if not text.isascii() and text != "中文"] == []
    tab.page.keyboard.press("Escape")
    tab.find("#language").click()
    assert tab.find("html").get_attribute("lang") == "zh-CN"
    assert tab.texts(".answer h3 span") == ["训练前", "训练后"]
    assert tab.find(".base").get_attribute("aria-label") == "训练前的回答"
    assert tab.find(".question").get_attribute("lang") == "en"
    assert tab.texts(".notes p") == []
    assert tab.page.title() == "medqa · 医学问答"
    tab.page.reload()
    assert tab.find("html").get_attribute("lang") == "zh-CN"


def test_phone(visit: Open) -> None:
    tab = visit(**PHONE)
    wide = "() => document.documentElement.scrollWidth"
    assert tab.page.evaluate(wide) == 390
    tab.ask("https://example.org/" + "very-long-" * 14 + " 胸痛", "both")
    assert tab.page.evaluate(wide) == 390
    upper, lower = (box.bounding_box() for box in tab.find(".two .answer").all())
    assert upper["x"] == lower["x"] and upper["y"] + upper["height"] < lower["y"]
    for target in tab.find("button:visible, .call:visible, #sides label, textarea").all():
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= 44, target.inner_text()
    tab.page.set_viewport_size({"width": 320, "height": 640})
    assert tab.page.evaluate(wide) == 320


def test_contrast(visit: Open) -> None:
    tab = visit()
    found: dict[str, list[Any]] = {"first": [], "answers": [], "history": []}
    for place, pairs in found.items():
        if place == "answers":
            tab.ask("胸痛吃多少", "both")
            tab.ask("断线")
        elif place == "history":
            tab.find("#earlier").click()
        for scheme in ("light", "dark"):
            tab.page.emulate_media(color_scheme=scheme)
            pairs += tab.page.evaluate(CONTRASTS)
            assert tab.page.evaluate(EDGE) >= 3  # WCAG 2.2, 1.4.11
    sizes = [len(pairs) for pairs in found.values()]
    assert sizes[0] > 24 and sizes[1] > 50 and sizes[2] > sizes[1]
    assert [pair for pairs in found.values() for pair in pairs if pair[0] < 4.5] == []


def test_nothing_jumps_while_it_writes(visit: Open) -> None:
    shifts = (
        "window.shift = 0; new PerformanceObserver((list) => list.getEntries().forEach("
        "(e) => (window.shift += e.value))).observe({ type: 'layout-shift', buffered: true });"
    )
    tab = visit(script=shifts)
    tab.ask("胸痛吃多少")
    before = tab.page.evaluate("() => window.shift")
    tab.ask("一个说得很长的问题" * 8, "tuned")
    assert tab.page.evaluate("() => window.shift") - before < 0.01


def test_page_follows_only_who_is_at_its_end(visit: Open, server: Standin) -> None:
    tab = visit()
    place = "() => document.documentElement.scrollHeight - innerHeight - scrollY"
    tab.begin("滔滔")
    tab.find(".text:has-text('59 60')").wait_for()
    assert tab.page.evaluate(place) < 2
    tab.page.mouse.wheel(0, -400)
    tab.page.wait_for_function(f"() => ({place})() > 300")
    there = tab.page.evaluate("() => scrollY")
    server.go_on.set()
    tab.find("#send").wait_for()
    assert tab.page.evaluate("() => scrollY") == there
    assert tab.page.evaluate(place) > 1000


def test_on_the_real_server(visit: Open) -> None:
    with serving(concurrency=1, queue=0) as real:
        tab = visit(f"{real.url}/")
        tab.ask("华法林的禁忌人群是谁")
        assert tab.texts(".text") == ["华法林的禁忌人群是谁"]
        tab.ask(TRICK)
        assert tab.texts(".turn:last-child .text") == [TRICK]
        tab.ask("我爸突然胸口疼，一身冷汗")
        assert "120" in tab.page.get_by_role("alert").inner_text()
        tab.ask("布洛芬一次吃多少毫克")
        assert "遵医嘱" in tab.texts(".turn:last-child .dose")[0]

        real.parrot.free.clear()
        tab.begin("两边都要", "both")
        tab.find(".note:has-text('服务器正忙，请在 1 秒后重试。')").wait_for()
        real.parrot.free.set()
        tab.find("#send").wait_for()
        tab.find("button:text-is('重试')").click()
        tab.find("#send").wait_for()
        assert sorted(tab.texts(".turn:last-child .text")) == ["两边都要", "两边都要两边都要"]

        real.parrot.fails = 2
        tab.ask("坏了吗", "tuned")
        assert tab.texts(".turn:last-child .text") == ["坏了"]
        assert "服务器出错了" in tab.texts(".turn:last-child .note")[0]
        real.parrot.fails = None

        real.parrot.free.clear()
        tab.begin("等一下")
        tab.page.wait_for_function("() => !document.getElementById('stop').hidden")
        tab.find("#stop").click()
        tab.find(".turn:last-child .note:has-text('已停止')").wait_for()
        real.parrot.free.set()

        real.traffic.stopping = True
        tab.ask("关门了吗")
        assert tab.texts(".turn:last-child .note") == ["服务器正在关闭，不再接受问题。"]
