"""``llamafactory-cli train`` with the remedies in place; `launch` runs it as a process.

Where there are several cards (or FORCE_TORCHRUN=1) LLaMA-Factory's launcher turns this process into
torchrun, which runs this module again in every process it starts. Whatever else starts one process
for a card may run it too: ``accelerate launch -m medqa.train.worker RECIPE.yaml``.
"""

import ctypes
import os
import signal
import sys

from medqa import remedies
from medqa.train import prefix

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Hands the arguments of this process to LLaMA-Factory."""
    one_of_several = "LOCAL_RANK" in os.environ
    if one_of_several:
        _end_with_parent()
    with remedies.applied(), prefix.trainable():
        if one_of_several:
            from llamafactory.train.tuner import run_exp

            run_exp()
        else:
            from llamafactory.cli import main as llamafactory

            sys.argv = ["llamafactory-cli", "train", *sys.argv[1:]]
            llamafactory()


def _end_with_parent() -> None:
    """Lets the system end this process when torchrun ends, be it by ``kill -9``.

    torchrun starts its workers in sessions of their own. It holds the lock on the output folder and
    they do not: one that outlived it would write into a folder that looks free.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
