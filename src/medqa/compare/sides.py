"""Who answers: a model with its adapter off and on, two models, or two endpoints."""

from collections.abc import Container, Iterator, Sequence

from medqa import provenance
from medqa.compare.endpoint import EndpointAnswers
from medqa.compare.generate import Answer, Pair, Side, TwoModels
from medqa.compare.plan import ComparePlan, Endpoints
from medqa.errors import MissingInputError
from medqa.paths import resolve, shown


class Servers:
    """Two endpoints; what their models think of a given answer they do not say.

    Raises:
        ConfigError: A key is not there.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._of: dict[Side, EndpointAnswers] = {
            "base": EndpointAnswers(endpoints.base),
            "tuned": EndpointAnswers(endpoints.tuned),
        }

    def answers(
        self,
        side: Side,
        questions: Sequence[str],
        *,
        max_new_tokens: int,
        batch_size: int,  # of loaded models; an endpoint has its concurrency
        kept: Container[object] = (),
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Asks the endpoint of `side`."""
        return self._of[side].answers(questions, max_new_tokens=max_new_tokens, kept=kept)

    def losses(
        self,
        side: Side,
        pairs: Sequence[tuple[str, str]],
        *,
        cutoff_len: int,
        batch_size: int,
        kept: Container[object] = (),
    ) -> Iterator[list[tuple[int, float, int]]]:
        """Yields nothing."""
        return iter(())


def opened(plan: ComparePlan) -> Pair | TwoModels | Servers:
    """Loads what `plan` names, or looks at the endpoints' keys."""
    if plan.endpoints:
        return Servers(plan.endpoints)
    assert plan.model_name_or_path  # the plan is checked
    if plan.adapter_name_or_path:
        return Pair(plan.model_name_or_path, plan.adapter_name_or_path)
    assert plan.tuned_model_name_or_path
    return TwoModels(plan.model_name_or_path, plan.tuned_model_name_or_path)


def require_keys(plan: ComparePlan) -> None:
    """Raises ConfigError where the environment lacks a key, before hours are spent."""
    asked = [plan.judge.endpoint] if plan.judge else []
    if plan.endpoints:
        asked += [plan.endpoints.base, plan.endpoints.tuned]
    for endpoint in asked:
        endpoint.key()


def who(plan: ComparePlan) -> dict[str, str]:
    """Returns who is compared, with digests: model folders, adapter weights, endpoints, files.

    Raises:
        MissingInputError: A step that comes before has not been run; says which.
        CheckpointError: The adapter was trained on another base.
    """
    if plan.endpoints:
        sides = {"base": plan.endpoints.base, "tuned": plan.endpoints.tuned}
        return {f"{side}: {one.base_url}": one.model for side, one in sides.items()}
    if plan.predictions:
        files = [resolve(name) for name in (plan.predictions.base, plan.predictions.tuned)]
        for file in files:
            if not file.is_file():
                raise MissingInputError(
                    f"{shown(file)} does not exist; LLaMA-Factory writes it with do_predict and "
                    "predict_with_generate"
                )
        return provenance.digest(*files)
    assert plan.model_name_or_path  # the plan is checked
    if plan.tuned_model_name_or_path:
        return model(plan.model_name_or_path) | model(plan.tuned_model_name_or_path)
    assert plan.adapter_name_or_path
    return with_adapter(plan.model_name_or_path, plan.adapter_name_or_path)


def model(name: str) -> dict[str, str]:
    """Returns a model folder with its digest.

    Raises:
        MissingInputError: It is not there.
    """
    folder = resolve(name)
    if not (folder / "config.json").is_file():
        raise MissingInputError(
            f"model {shown(folder)} does not exist; run: make model, or scripts/import_model.py"
        )
    return provenance.model_digest(folder)


def with_adapter(name: str, adapter: str) -> dict[str, str]:
    """Returns a base model's folder and the weights of its adapter, with digests.

    Raises:
        MissingInputError: One of them is not there.
        CheckpointError: The adapter was trained on another base.
    """
    base = model(name)
    folder = resolve(adapter)
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise MissingInputError(
            f"adapter {shown(folder)} does not exist or is not finished; "
            "run: python scripts/train.py with its recipe"
        )
    provenance.require_same_base(folder, resolve(name))
    return base | provenance.digest(weights)
