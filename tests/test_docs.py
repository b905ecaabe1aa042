"""What the READMEs show is there: commands, files, and the same content in both languages."""

import re
from pathlib import Path

import pytest

READMES = ("README.md", "README_zh.md")
both = pytest.mark.parametrize("name", READMES)


def _text(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def _targets(root: Path) -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", _text(root, "Makefile"), re.MULTILINE))


@both
def test_every_make_target_named_exists(root: Path, name: str) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", _text(root, name), re.MULTILINE))
    assert {"demo", "test", "train", "compare", "webui"} <= named <= _targets(root)


@both
def test_every_script_and_config_named_exists(root: Path, name: str) -> None:
    text = _text(root, name)
    named = set(re.findall(r"(?:scripts|configs)/[\w./-]+\.(?:py|yaml)", text))
    assert len(named) >= 5
    assert [path for path in named if not (root / path).is_file()] == []


@both
def test_every_link_leads_somewhere(root: Path, name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", _text(root, name))
    local = [link for link in links if "://" not in link]
    assert len(local) >= 5
    assert [link for link in local if not (root / link).is_file()] == []


@both
def test_the_tree_is_true(root: Path, name: str) -> None:
    """Every path drawn exists, and every folder of configs, src/medqa and tests is drawn."""
    tree = re.search(r"```\n(configs/\n.*?)```", _text(root, name), re.DOTALL)
    assert tree
    drawn, stack = set(), []
    for line in tree[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.findall(r"(?<!\S)[\w./-]+(?:/|\.py)(?=\s|$)", line)
        names = names if len(names) > 1 and all(n.endswith(".py") for n in names) else names[:1]
        for entry in names:
            stack = [*stack[:depth], entry]
            drawn.add("".join(stack).rstrip("/"))
    assert [path for path in drawn if not (root / path).exists()] == []
    package = root / "src/medqa"
    expected = {p.relative_to(root).as_posix() for p in (root / "configs").iterdir() if p.is_dir()}
    expected |= {p.parent.relative_to(root).as_posix() for p in package.glob("*/__init__.py")}
    expected |= {p.relative_to(root).as_posix() for p in package.glob("[a-z]*.py")}
    assert expected - drawn == set()


def test_both_languages_say_the_same(root: Path) -> None:
    """Same commands, same blocks, same number of sections and table rows."""
    english, chinese = (_text(root, name) for name in READMES)
    for pattern in (
        r"^#+ ",
        r"^\|",
        r"^```",
        r"^make [a-z]+",
        r"^python .*$",
        r"!\[.*?\]\((.*?)\)",
    ):
        found = [re.findall(pattern, text, re.MULTILINE) for text in (english, chinese)]
        assert found[0] == found[1], pattern
    shown = [
        re.search(r"<!-- demo -->(.*?)<!-- /demo -->", t, re.DOTALL) for t in (english, chinese)
    ]
    assert shown[0] and shown[1] and shown[0][1] == shown[1][1]
    assert "probes answered rightly" in shown[0][1]


def test_every_script_is_thin_and_explains_itself(root: Path) -> None:
    scripts = sorted((root / "scripts").glob("*.py"))
    assert len(scripts) >= 8
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 40, script.name
        assert f"python scripts/{script.name}" in text.split('"""')[1], script.name


def test_make_alone_lists_every_target(root: Path) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", _text(root, "Makefile"), re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == _targets(root)
