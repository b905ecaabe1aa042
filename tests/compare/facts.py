"""A small comparison, as run.py hands it to report and terminal."""

from typing import Any

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def free(question: str, base: str = "旧", tuned: str = "新") -> dict[str, Any]:
    return {"set": "questions", "question": question, "base": base, "tuned": tuned}


def probed(question: str, base_passed: bool, tuned_passed: bool) -> dict[str, Any]:
    return {
        **free(question),
        "set": "medical",
        "id": question,
        "category": "class",
        "reference": f"期望{EVIL}",
        "base_passed": base_passed,
        "tuned_passed": tuned_passed,
        "base_why": "" if base_passed else "must_all 期望: not in '旧'",
        "tuned_why": "" if tuned_passed else f"must_not {EVIL}",
    }


def scored(question: str, base: float, tuned: float) -> dict[str, Any]:
    return {
        **free(question, "可以喝酒。", "不可以喝酒。"),
        "set": "test",
        "reference": "参考答案",
        "base_scores": {"rouge_l": base},
        "tuned_scores": {"rouge_l": tuned},
    }


def metric(name: str, better: str | None, base: float, tuned: float, p: float) -> dict[str, Any]:
    change = tuned - base
    return {
        "name": name,
        "better": better,
        "rows": 7,
        "base": base,
        "tuned": tuned,
        "difference": change,
        "low": change - 0.01,
        "high": change + 0.01,
        "p_value": p,
        "wins": 4,
        "ties": 2,
        "losses": 1,
    }


COUNTS = {"rows": 4, "base": 2, "tuned": 3, "gained": 2, "lost": 1, "low": -0.3, "high": 0.6}
FOUND: dict[str, Any] = {
    "verdict": {
        "outcome": "better",
        "zh": "训练后的模型更好。",
        "en": "The tuned model is better.",
    },
    "gate": [
        {
            "name": "loop_rate",
            "zh": "几乎没有循环重复的回答",
            "en": "hardly any answer ends in a loop",
            "required": "below 1.0%",
            "measured": "14.3%",
            "passed": False,
        }
    ],
    "metrics": [
        metric("perplexity", "lower", 28.123, 1.5, 0.0001),
        metric("bleu_4", "higher", 0.0231, 0.0497, 0.0321),
        metric("length", None, 40.0, 80.0, 0.001),
        metric("loop", "lower", 0.0, 1 / 7, 1.0),
    ],
    "probes": {
        "medical": {
            "title": {"zh": "医学事实", "en": "medical facts"},
            "names": {"class": "类别"},
            "total": COUNTS | {"p_value": 1.0},
            "categories": {"class": COUNTS | {"p_value": 1.0}},
        }
    },
    "judge": None,
    "training": {"steps": 20, "seconds_per_step": 0.25, "train_loss": 1.2},
    "definitions": {"bleu_4": "characters, smoothing method 3, mean over rows"},
}
ANSWERS = [
    free(f"自由问题{EVIL}", base=EVIL, tuned=f"x{EVIL}"),
    probed("甲问", True, True),
    probed("乙问", True, False),
    probed("丙问", False, True),
    probed(f"丁问{EVIL}", False, False),
    scored("戊问", 0.5, 0.4),
    scored("己问", 0.5, 0.1),
    scored("庚问", 0.5, 0.9),
]
RECORD: dict[str, Any] = {
    "inputs": {"models/tiny": "f00d", f"data/{EVIL}": EVIL},
    "versions": {"torch": "2.10.0"},
    "config": {"test_rows": 7},
    "config_digest": "c0ffee",
}
