"""A Pair sits an examination: lm-eval's tasks and scoring, our chat format and our generator.

Imported only where an examination is held: lm-eval takes seconds to load.
"""

from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from lm_eval.api.model import CacheHook
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from medqa.compare.exams_choices import chosen
from medqa.compare.exams_plan import ExamTask
from medqa.compare.generate import Answer, Pair, Side
from medqa.compare.journal import Journal
from medqa.compare.loading import within_memory
from medqa.errors import DataError


class Candidate(HFLM):  # type: ignore[misc]  # lm-eval has no type information
    """A Pair as lm-eval's language model; answers as the side that `sit` is called with.

    lm-eval hands over the text of a question; here it becomes the prompt of the Pair, so that the
    ids are those of training, and no text of an examination becomes a control token.

    Args:
        pair: The loaded model.
        batch_size: Questions at a time.
        journal: Keeps what the model said; what it holds already is not asked again.
        advance: Called with the number of requests answered since.
    """

    def __init__(
        self, pair: Pair, batch_size: int, journal: Journal, advance: Callable[[int], None]
    ) -> None:
        super().__init__(
            pretrained=pair.model,
            backend="causal",
            tokenizer=pair.tokenizer,
            batch_size=batch_size,
            softmax_dtype="float32",
        )
        self.pair, self.journal, self.advance = pair, journal, advance
        self.set_cache_hook(_Counter(advance))
        self.side: Side = "base"
        self.part = ""

    def sit(self, side: Side, name: str, task: ConfigurableTask) -> list[dict[str, Any]]:
        """Answers all questions of a task.

        Returns:
            lm-eval's sample of each document, in order: what was answered, and its metric.
        """
        self.side, self.part = side, f"{side} {name}"
        found = evaluate(
            lm=self,
            task_dict={"tasks": {name: task}},
            bootstrap_iters=0,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
        )
        return sorted(found["samples"][name], key=lambda sample: sample["doc_id"])

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Returns the question, which the Pair puts into the chat format."""
        (message,) = chat_history  # zero-shot: one turn of the user
        return message["content"]

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Returns log-likelihood (nats) and greediness of each given answer."""
        kept = self.journal.kept(self.part)
        if len(kept) == len(requests):
            self.advance(len(requests))
        else:
            with self.pair.as_side(self.side) as self._model:
                ask = super().loglikelihood
                # One step of work, begun where a card that is too small is explained.
                work = (ask(requests, disable_tqdm) for _ in range(1))
                (found,) = within_memory(work, self.batch_size)
            self.journal.add(self.part, enumerate(found))
        return [(kept[n][0], kept[n][1]) for n in range(len(requests))]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Returns the greedy answers, control tokens left out."""
        questions = [request.args[0] for request in requests]
        longest = requests[0].args[1]["max_gen_toks"]
        for question in questions:
            self._require_room(question, longest)
        kept = self.journal.kept(self.part)
        done = {n for n in kept if isinstance(n, int)}
        self.advance(len(done))
        for batch in self.pair.answers(
            self.side, questions, max_new_tokens=longest, batch_size=self.batch_size, kept=done
        ):
            self.journal.add(self.part, batch)
            self.advance(len(batch))
        return [Answer(*kept[n]).text for n in range(len(questions))]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        given = self.pair.ids(continuation)
        self._require_room(context, len(given) + 1)
        return [*self.pair.prompt(context), *self.pair.ids("\n")], given

    def _require_room(self, question: str, answer: int) -> None:
        length = len(self.pair.prompt(question)) + answer
        if length > self.max_length:
            raise DataError(
                f"{self.part}: a question takes {length} tokens with its answer, and the model "
                f"holds {self.max_length}: {question[:40]!r}; take it out of the file"
            )


class _Counter(CacheHook):  # type: ignore[misc]
    """Is told by HFLM of every likelihood that it has computed."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        super().__init__(None)
        self.advance = advance

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self.advance(1)


def lm_eval_task(name: str, task: ExamTask, documents: Sequence[dict[str, Any]]) -> Any:
    """Returns a task file as lm-eval's task over `documents`; nothing is read or looked up."""
    config = task.model_dump(exclude_none=True) | {
        "task": name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(list(documents))},
        "test_split": "test",
        "num_fewshot": 0,
    }
    if task.written:
        config["generation_kwargs"] |= {"until": [], "do_sample": False}
        config["process_results"] = lambda document, answers: {
            "acc": float(
                chosen(answers[0], document["letters"], document["options"]) == document["answer"]
            )
        }
    found = ConfigurableTask(config=config)
    found.set_fewshot_seed(seed=0)
    return found


def requests(task: ExamTask, documents: Sequence[dict[str, Any]]) -> int:
    """Returns how many answers a task asks one side for."""
    return len(documents) if task.written else sum(len(d["letters"]) for d in documents)


def entry(side: Side, task: ExamTask, sample: dict[str, Any]) -> dict[str, Any]:
    """Returns what a row of ``answers.jsonl`` holds of one side.

    ``<side>_choice`` is None where no choice could be read; of equally likely answers it is the
    first, as everywhere in lm-eval.
    """
    document, metric = sample["doc"], task.metric_list[0].metric
    if task.written:
        text = sample["filtered_resps"][0]
        choice = chosen(text, document["letters"], document["options"])
        said: dict[str, Any] = {side: text}
    else:
        sums = [nats for nats, _ in sample["filtered_resps"]]
        lengths = [len(option) for option in document[task.doc_to_choice]]
        scores = [s / n for s, n in zip(sums, lengths, strict=True)] if "norm" in metric else sums
        choice = document["letters"][scores.index(max(scores))]
        said = {f"{side}_scores": [round(score, 6) for score in scores]}
    return said | {f"{side}_choice": choice, f"{side}_right": sample[metric] == 1}
