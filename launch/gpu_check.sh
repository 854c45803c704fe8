#!/usr/bin/env bash
# Checks on a GPU what tests on a CPU cannot tell: at most 8 minutes a call, the same command goes on where it ended.
# Leaves gpu_check.json and gpu_check.md (the table) in runs/gpu_check, or in the folder of --output=DIR. Without a GPU,
# and with --small, it does everything in small. Python is .venv's, or with PYTHON_HERE=1 the one on the PATH.
(  # in a shell of its own: sourced, a failure leaves the terminal open
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.."
[ -n "${PYTHON_HERE:-}" ] || source launch/setup.sh
if compgen -G "/dev/nvidia[0-9]*" >/dev/null; then
  python -c "import torchvision" 2>/dev/null || python -m pip install --quiet torch torchvision ||
    echo "warning: no torch, and it could not be installed: speed is compared with nothing" >&2
else
  set -- --small "$@"
fi
python -m launch.benchmark --suite=gpu "$@"
)
