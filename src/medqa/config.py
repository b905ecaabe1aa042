"""Strict YAML: every unknown, duplicate or ill-typed key is reported, all of them at once."""

import ast
import difflib
import importlib.util
import re
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from medqa.errors import ConfigError
from medqa.paths import config_file, shown

UNSHOWN = "unshown"  # type of a PydanticCustomError about a value in which a secret may stand


class Strict(BaseModel):
    """Base of our own schemas: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Schema = TypeVar("Schema", bound=BaseModel)


def load(path: str | Path, overrides: Sequence[str], schema: type[Schema]) -> Schema:
    """Reads one of our YAMLs.

    Args:
        path: The file, looked up from the working directory, then the project root.
        overrides: ``key=value`` or ``key.inner=value``, the value itself YAML.
        schema: What it must hold.

    Raises:
        MissingInputError: There is no such file.
        ConfigError: Everything that is wrong with it.
    """
    file = config_file(path)
    return validate(read_yaml(file, overrides), schema, shown(file))


def load_llamafactory(
    path: str | Path, overrides: Sequence[str], purpose: Literal["train", "infer"]
) -> dict[str, Any]:
    """Reads one of LLaMA-Factory's own YAMLs and checks its keys and types without importing it.

    Returns:
        The values as written (with numbers such as ``1e-4`` turned into numbers), nothing added.

    Raises:
        MissingInputError: There is no such file.
        ConfigError: Everything that is wrong with it.
    """
    file = config_file(path)
    values = read_yaml(file, spelled(overrides))
    checked = validate(values, llamafactory_schema(purpose), shown(file))
    return {key: getattr(checked, key) for key in values}


def spelled(overrides: Sequence[str]) -> list[str]:
    """Returns `overrides` with ``eval_strategy=no`` and its like in quotes.

    YAML 1.1, which OmegaConf reads too, takes a bare ``no`` for false; transformers wants the word.
    """
    return [re.sub(r"^(\w+_strategy)=no$", r"\1='no'", override) for override in overrides]


def validate(values: dict[str, Any], schema: type[Schema], source: str) -> Schema:
    """Returns `values` as a `schema`, or raises one ConfigError that names every problem."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        problems = [_problem(dict(e), schema) for e in error.errors()]
        raise ConfigError(source, problems) from None


def read_yaml(file: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the mapping in `file` with `overrides` applied.

    Raises:
        ConfigError: It is no UTF-8 YAML mapping, has a key twice, or an override has no ``=``.
    """
    source = shown(file)
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(source, [f"not UTF-8 text ({error.reason})"]) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-99-99
        raise ConfigError(source, [" ".join(str(error).split())]) from None
    if not isinstance(values, dict):
        raise ConfigError(source, [f"expected 'key: value' lines, found {_kind(values)}"])
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            problems.append(f"override {override!r} is not key=value")
            continue
        try:
            problems += _set(values, key, yaml.safe_load(text))
        except (yaml.YAMLError, ValueError):
            problems.append(f"override {override!r}: the value is not YAML")
    if problems:
        raise ConfigError(source, problems)
    return values


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ``; did you mean 'x'?`` for the nearest name, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""


def llamafactory_schema(purpose: Literal["train", "infer"]) -> type[BaseModel]:
    """Builds the schema of LLaMA-Factory's arguments from the source of the installed version.

    Importing its parser costs six seconds and more; reading the dataclasses that it is made of
    (``llamafactory/hparams/*_args.py`` and transformers' training arguments) costs a tenth of one.
    """
    files = [_package("llamafactory") / "hparams" / f"{n}_args.py" for n in _ARGUMENTS[purpose]]
    if purpose == "train":
        base = _package("transformers")
        files += [base / "training_args.py", base / "training_args_seq2seq.py"]
    fields: dict[str, Any] = {}
    for file in files:
        for name, annotation in _dataclass_fields(file):
            fields.setdefault(name, (annotation, None))
    return create_model("LlamaFactoryArguments", __config__=ConfigDict(extra="forbid"), **fields)


_ARGUMENTS = {
    "train": ("model", "data", "finetuning", "generating", "training"),
    "infer": ("model", "data", "finetuning", "generating"),
}
_SCALARS: dict[str, type] = {"int": int, "float": float, "bool": bool}


def _dataclass_fields(file: Path) -> list[tuple[str, Any]]:
    found = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for line in node.body:
            if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
                continue
            if not _is_computed(line.value):
                found.append((line.target.id, _annotation(line.annotation)))
    return found


def _is_computed(default: ast.expr | None) -> bool:
    """Says whether a field is declared ``field(init=False)``: the library's own, no argument."""
    options = default.keywords if isinstance(default, ast.Call) else []
    return any(o.arg == "init" and ast.unparse(o.value) == "False" for o in options)


def _annotation(annotation: ast.expr) -> Any:
    """Returns the type of a field where it is a number, a switch or a choice, else Any.

    Strings are left to the library: a ``str`` of it may be a list in YAML.
    """
    names = {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)}
    constants = [n.value for n in ast.walk(annotation) if isinstance(n, ast.Constant)]
    optional = "Optional" in names or None in constants
    kinds = names - {"Optional"}
    if kinds == {"Literal"}:
        kind: Any = Literal.__getitem__(tuple(c for c in constants if c is not None))
    elif len(kinds) == 1 and kinds <= _SCALARS.keys():
        kind = _SCALARS[kinds.pop()]
    else:
        return Any
    return kind | None if optional else kind


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ConfigError("environment", [f"package {name} is not installed; run: make install"])
    return Path(spec.origin).parent


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML 1.2, 3.2.1.3); PyYAML keeps the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # SafeLoader refuses a list or a mapping as key
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _set(values: dict[str, Any], dotted: str, value: Any) -> list[str]:
    *outer, last = dotted.split(".")
    for name in outer:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            return [f"override {dotted!r}: {name!r} holds {_kind(inner)}, no keys"]
        values = inner
    values[last] = value
    return []


def _problem(error: dict[str, Any], schema: type[BaseModel]) -> str:
    where = [str(part) for part in error["loc"]]
    name = ".".join(where) or "the file"
    if error["type"] == "extra_forbidden":
        return f"unknown key {name!r}{nearest(where[-1], _names(schema, where[:-1]))}"
    if error["type"] == "missing":
        return f"missing key {name!r}"
    if not where:  # keys that do not go together: the message names them
        return str(error["msg"])
    said = f"{name}: {error['msg'][0].lower()}{error['msg'][1:]}"
    return said if error["type"] == UNSHOWN else f"{said}, found {error['input']!r}"


def _names(schema: type[BaseModel], path: list[str]) -> list[str]:
    """Returns the key names at `path`, walking through lists and optional values."""
    models = [schema]
    for part in path:
        if part.isdigit():
            continue
        fields = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = [m for f in fields for m in _models_in(f)] or models
    return [name for model in models for name in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models_in(a)]


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
