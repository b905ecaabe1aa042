from medqa.data.core import bare, cores


def test_fillers_go_wherever_they_stand() -> None:
    texts = ["请问胃癌怎么治疗呢", "胃癌到底怎么治疗", "胃癌治疗"]
    assert bare(texts) == ["胃癌治疗"] * 3


def test_a_text_of_fillers_alone_stays_as_it_is() -> None:
    assert bare(["谢谢您", "怎么", "", "痛"]) == ["谢谢您", "怎么", "", "痛"]


def template(names: str) -> list[str]:
    return [f"{name}的辅助治疗有些什么" for name in names.split()]


NAMES = " ".join(f"{a}{b}" for a in "甲乙丙丁戊己庚辛壬癸" for b in "胃肝肺肾心脑脾胆")


def test_what_many_share_is_not_core() -> None:
    assert cores(template(NAMES)) == NAMES.split()


def test_a_phrase_with_a_wrong_a_missing_or_an_extra_character_is_still_one() -> None:
    texts = [f"{name}术后辅助治疗有些什么" for name in NAMES.split()]
    texts += ["胃癌术后辅助好疗有些什么", "胃癌术后辅助疗有些什么", "胃癌术后辅助治不疗有些什么"]
    assert cores(texts)[-3:] == ["胃癌"] * 3


def test_in_a_small_corpus_nothing_is_frequent() -> None:
    texts = template("胃癌 肝癌 肺癌")
    assert cores(texts) == texts


def test_phrases_do_not_reach_into_the_next_text() -> None:
    # "么\n胃癌" would be a phrase of four if the end of a text did not end it.
    texts = template(" ".join(f"胃癌{name}" for name in NAMES.split()))
    assert cores(texts) == [f"胃癌{name}" for name in NAMES.split()]


def test_less_than_two_characters_are_no_core() -> None:
    texts = template(NAMES)
    assert cores([*texts, "的辅助治疗有些什么", "胃的辅助治疗有些什么"])[-2:] == [
        "的辅助治疗有些什么",
        "胃的辅助治疗有些什么",
    ]


def test_no_texts() -> None:
    assert cores([]) == bare([]) == []
