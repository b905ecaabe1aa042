#!/usr/bin/env bash
# Memory, speed and MFU of every recipe on this machine's GPU, as if the card had 24 GB; no network.
#
#   scripts/bench/gpu.sh                      # at most 25 minutes; the same line goes on where it stopped
#   scripts/bench/gpu.sh --only 'lora_sft'    # the cells whose name matches
#   scripts/bench/gpu.sh --list               # what would run
#   scripts/bench/gpu.sh --tiny               # the same code on a CPU with a tiny model, in 2 minutes
#
# Options and method: scripts/bench/gpu.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "${PYTHON:-$python}" scripts/bench/gpu.py "$@"
