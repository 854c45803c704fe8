#!/usr/bin/env bash
# Sets up, lints, checks types, runs the tests. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
mypy
exec python -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"
