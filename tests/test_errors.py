"""The tree in the docstring is the tree in the code, and each branch has its exit code."""

import inspect
import re

from medqa import errors


def drawn() -> dict[str, str]:
    """Returns class name to parent as the docstring draws it."""
    parents: dict[int, str] = {}
    found = {}
    for indent, name in re.findall(r"^([│├└─ ]*)(\w+Error)\b", errors.__doc__ or "", re.M):
        level = len(indent) // 4
        parents[level] = name
        if level:
            found[name] = parents[level - 1]
    return found


def test_the_drawing_is_true() -> None:
    classes = {
        name: cls.__bases__[0].__name__
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__
    }
    assert classes.pop("MedqaError") == "Exception"
    assert drawn() == classes
    assert sorted(errors.__all__) == sorted([*classes, "MedqaError"])


def test_exit_codes() -> None:
    for name in errors.__all__:
        cls = getattr(errors, name)
        assert cls.exit_code == (2 if issubclass(cls, errors.UserError) else 1), name


def test_a_config_error_names_every_problem() -> None:
    error = errors.ConfigError("a.yaml", ["missing key 'x'", "unknown key 'y'"])
    assert str(error) == "a.yaml: missing key 'x'; unknown key 'y'"
    assert error.problems == ["missing key 'x'", "unknown key 'y'"]
