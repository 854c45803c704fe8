#!/usr/bin/env bash
# Sets up, lints, checks types, runs the tests. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
mypy
# The doctor's page is tested in a browser, which is installed where that can be done.
if ! command -v chromedriver >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update && apt-get install -y chromium chromium-driver; } >/dev/null 2>&1 || true
fi
command -v chromedriver >/dev/null ||
  echo "warning: no chromium and chromedriver, and they could not be installed: the page's browser tests are skipped" >&2
# A file's tests share what is slow to make: they stay together, in the order that conftest.py gives.
exec python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
