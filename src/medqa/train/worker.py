"""``llamafactory-cli train`` with the remedies in place; `launch` runs it as a process.

With more than one card LLaMA-Factory's launcher starts torchrun, and its workers run without them.
"""

import sys

from medqa import remedies


def main() -> None:
    """Hands the arguments of this process to LLaMA-Factory."""
    with remedies.applied():
        from llamafactory.cli import main as llamafactory

        sys.argv = ["llamafactory-cli", "train", *sys.argv[1:]]
        llamafactory()


if __name__ == "__main__":
    main()
