"""The only module that knows where things are.

Every relative path in a YAML is relative to the project root, as it is for
``llamafactory-cli`` started there.
"""

import os
from pathlib import Path

from medqa.errors import MissingInputError

ROOT_VARIABLE = "MEDQA_ROOT"


def project_root() -> Path:
    """Returns the folder that holds ``configs/``, ``data/``, ``models/`` and ``saves/``.

    ``$MEDQA_ROOT`` if set, else the checkout that this package stands in.
    """
    chosen = os.environ.get(ROOT_VARIABLE)
    return Path(chosen).resolve() if chosen else Path(__file__).resolve().parents[2]


def resolve(path: str | Path) -> Path:
    """Returns `path` as an absolute path; a relative one starts at the project root."""
    return project_root() / path


def shown(path: Path) -> str:
    """Returns `path` for a message or a record: relative to the project root where it is inside."""
    try:
        return path.resolve().relative_to(project_root()).as_posix()
    except ValueError:
        return str(path)


def dataset_info() -> Path:
    """LLaMA-Factory's dataset registry."""
    return project_root() / "data" / "dataset_info.json"


def processed(name: str) -> Path:
    """The converted files of data set `name`."""
    return project_root() / "data" / "processed" / name


def config_file(given: str | Path) -> Path:
    """Returns the config file `given`, looked up from the working directory, then the root.

    Raises:
        MissingInputError: It is in neither; lists the configs of the same folder.
    """
    for candidate in (Path(given), resolve(given)):
        if candidate.is_file():
            return candidate
    folder = resolve(given).parent
    known = sorted(p.name for p in folder.glob("*.yaml")) if folder.is_dir() else []
    if not known:
        known = sorted(shown(p) for p in project_root().glob("configs/*/*.yaml"))
    raise MissingInputError(
        f"config {given} does not exist; found: {', '.join(known) or 'no YAML under configs/'}"
    )
