"""The error tree.

MedqaError                  anything medqa reports without a traceback
├── UserError               the caller can mend it (exit code 2)
│   ├── ConfigError         a YAML or an override is wrong
│   ├── MissingInputError   a step that comes before has not been run
│   ├── DataError           a data file as a whole cannot be used
│   ├── CheckpointError     a model folder is not what it must be
│   ├── TargetError         the place to write to is taken
│   └── PreflightError      a training could not end well; a line for each reason
└── StepError               the step itself failed (exit code 1)
    ├── CheckFailedError    a result did not pass its own check
    └── DownloadError       a hub did not give what was asked for

A message is one line (of PreflightError one for each problem): what was expected, what was seen,
what to run.
"""

__all__ = [
    "CheckFailedError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DownloadError",
    "MedqaError",
    "MissingInputError",
    "PreflightError",
    "StepError",
    "TargetError",
    "UserError",
]


class MedqaError(Exception):
    """Base of all errors that are shown without a traceback."""

    exit_code = 1


class UserError(MedqaError):
    """The caller can mend it."""

    exit_code = 2


class ConfigError(UserError):
    """A YAML file or a ``key=value`` override is wrong; holds every problem found."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(f"{source}: " + "; ".join(problems))


class MissingInputError(UserError):
    """A file that an earlier step writes is not there."""


class DataError(UserError):
    """A data file as a whole cannot be used."""


class CheckpointError(UserError):
    """A model folder is not what it must be."""


class TargetError(UserError):
    """The place to write to is taken."""


class PreflightError(UserError):
    """A training could not end well; holds every reason, each with its cure."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))


class StepError(MedqaError):
    """The step itself failed."""


class CheckFailedError(StepError):
    """A result did not pass its own check."""


class DownloadError(StepError):
    """A hub did not give what was asked for."""
