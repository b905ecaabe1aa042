"""Variables of the environment that a library reads while it works for us."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def defaults(**values: str) -> Iterator[None]:
    """Sets the variables that are not set, and takes them back after the block.

    Whatever this process starts later inherits its environment: a training that was started after a
    merge would say as little as the merge.
    """
    ours = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
