"""What can be fetched, where it is, and what is known of it."""

from collections.abc import Mapping
from typing import Literal, get_args

Hub = Literal["huggingface", "modelscope"]
HUBS: tuple[Hub, ...] = get_args(Hub)

MODELS: Mapping[str, Mapping[Hub, str]] = {
    name: {"huggingface": f"zai-org/{name}", "modelscope": f"ZhipuAI/{name}"}
    for name in ("chatglm3-6b", "chatglm3-6b-base", "chatglm3-6b-32k")
}
"""Our name of a model to its id on each hub (on Hugging Face zai-org was once THUDM)."""

DATA_OWNER = "FreedomIntelligence"
DATA: Mapping[str, tuple[str, ...]] = {
    "huatuo_encyclopedia_qa": ("train_datasets.jsonl",),
    "huatuo_knowledge_graph_qa": ("train_datasets.jsonl",),
    "Huatuo26M-Lite": ("format_data.jsonl",),
    "huatuo26M-testdatasets": ("test_datasets.jsonl",),
}
"""Data set to the files without which it is of no use; its other JSON lines come along."""

EXAMS: Mapping[str, tuple[Mapping[Hub, str], tuple[str, ...]]] = {
    "cmmlu": (
        {"huggingface": "haonan-li/cmmlu", "modelscope": "modelscope/cmmlu"},
        ("cmmlu_v1_0_1.zip",),
    ),
    "ceval": (
        {"huggingface": "ceval/ceval-exam", "modelscope": "opencompass/ceval-exam"},
        ("ceval-exam.zip",),
    ),
    "cmb": (
        {"huggingface": "FreedomIntelligence/CMB", "modelscope": "FreedomIntelligence/CMB"},
        (
            "CMB-Exam/CMB-val/CMB-val-merge.json",
            "CMB-Exam/CMB-test/CMB-test-choice-question-merge.json",
        ),
    ),
    # Published on GitHub (williamliujl/CMExam); this copy of its test split is by someone else.
    "cmexam": ({"huggingface": "fzkuji/CMExam"}, ("test.json",)),
}
"""Our name of an examination to its id on each hub that has it, and the files it takes.

The ids were read in public code and pages in 2026 and not tried; a hub that holds something else is
told by the names and the hashes that it lists.
"""

KNOWN: Mapping[tuple[str, str], tuple[int, str]] = {
    ("huatuo_encyclopedia_qa", "train_datasets.jsonl"): (604_103_775, "d89c034a"),
    ("huatuo_knowledge_graph_qa", "train_datasets.jsonl"): (148_347_165, "7716b468"),
    ("Huatuo26M-Lite", "format_data.jsonl"): (138_220_325, "84b849f0"),
}
"""Repository and file to its bytes and the first digits of its SHA-256, as published in 2025."""

REFUSED: Mapping[str, str] = {
    "huatuo_consultation_qa": "its answers are links, in all but 5 of 32,706,346 rows, and cannot "
    "be trained on; the other sets hold all the public text: python scripts/download.py data",
}
