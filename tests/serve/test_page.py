"""The page's files, and how they are served; what they do in a browser is in test_browser.py."""

import re
from collections.abc import Iterator

import httpx
import pytest

from medqa.serve import page
from tests.serve.standin import served, standin

FACTS = page.about(
    {"medqa-tiny": "tuned", "medqa-tiny-base": "base"},
    max_prompt_characters=2000,
    max_messages=20,
    needs_key=False,
)
SOURCES = {file.name: file.read_text(encoding="utf-8") for file in page.FOLDER.iterdir()}
HTML, SCRIPTS = SOURCES["index.html"], [n for n in SOURCES if n.endswith(".js")]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served(standin()) as server, httpx.Client(base_url=server.address) as client:
        yield client


def words(language: str) -> dict[str, str]:
    """What words.js says, functions as their source."""
    block = re.search(rf"^  {language}: {{\n(.*?)^  }},", SOURCES["words.js"], re.M | re.S)[1]
    return dict(re.findall(r"^    (\w+): (?:\"(.*)\"|\(.*),$", block, re.M))


def test_about_is_what_the_page_reads() -> None:
    assert FACTS["models"] == [
        {"id": "medqa-tiny", "side": "tuned"},
        {"id": "medqa-tiny-base", "side": "base"},
    ]
    assert {language: len(asked) for language, asked in FACTS["examples"].items()} == {
        "zh": 5,
        "en": 5,
    }
    assert all("120" in text for text in FACTS["disclaimer"].values())
    given = {"zh": "甲", "en": "a"}
    own = page.about({}, max_prompt_characters=1, max_messages=1, needs_key=True, disclaimer=given)
    assert own["disclaimer"] == given and own["needs_key"]


@pytest.mark.parametrize("name", ["", *(f"page/{n}" for n in SOURCES if n != "index.html")])
def test_every_file_is_served_strictly(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/{name}")
    assert answer.status_code == 200
    assert answer.text == SOURCES[name.removeprefix("page/") or "index.html"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("require-trusted-types-for") == "'script'"
    assert set(rules.values()) == {"'self'", "'none'"}
    assert client.head(f"/{name}").status_code == 200


def test_page_json(client: httpx.Client) -> None:
    answer = client.get("/page.json")
    assert answer.json().keys() == FACTS.keys()
    assert answer.json()["examples"] == FACTS["examples"]
    assert "西地那非" in answer.text
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("name", ["", "index.html", "%2e%2e/page.py", "x.js"])
def test_nothing_else_is(client: httpx.Client, name: str) -> None:
    assert client.get(f"/page/{name}").status_code == 404


def test_page_is_no_part_of_the_api(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json()["paths"].keys() == {"/v1/chat/completions"}


def test_nothing_comes_from_outside() -> None:
    for name, source in SOURCES.items():
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", source))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
    # Relative, so that a proxy may serve all of it below a path.
    code = HTML + "".join(SOURCES[name] for name in SCRIPTS)
    assert re.findall(r"""(?:href=|src=|fetch\(|from )["']?/""", code) == []
    assert sum(len(source.encode()) for source in SOURCES.values()) < 60_000


def test_text_never_becomes_markup() -> None:
    for name in SCRIPTS:
        markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
        assert re.findall(markup, SOURCES[name]) == [], name


def test_both_languages_say_the_same_things() -> None:
    chinese, english = words("zh"), words("en")
    assert len(chinese) > 50
    assert list(chinese) == list(english)
    assert [word for word, text in english.items() if re.search("[一-鿿]", text)] == ["language"]


def test_every_word_is_there_and_used() -> None:
    chinese = words("zh")
    named = re.findall(r'data-(?:word|label|placeholder)="(\w+)"', HTML)
    assert set(named) <= set(chinese)
    # Before the script has run, the page says the same in Chinese.
    said = dict(re.findall(r'data-word="(\w+)"[^>]*>([^<]+)<', HTML))
    assert said == {word: chinese[word] for word in said} and len(said) > 15
    code = HTML + "".join(SOURCES[name] for name in SCRIPTS if name != "words.js")
    assert [word for word in chinese if not re.search(rf"\b{word}\b", code)] == []


def test_script_finds_what_it_looks_for() -> None:
    ids = re.findall(r'\bid="(\w+)"', HTML)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\$\("(\w+)"\)', SOURCES["page.js"])) <= set(ids)
    style = re.sub(r"#[0-9a-f]{3,8}\b", "", SOURCES["page.css"])
    assert set(re.findall(r"#([a-z]+)", style)) <= set(ids)
