#!/usr/bin/env bash
# Sets up, lints, checks types, runs the tests: all, or with --quick those that take little. Other arguments go to pytest.
(  # in a shell of its own: sourced, a failure leaves the terminal open
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]:-$0}")/setup.sh"
ruff check .
mypy
if [ "${1:-}" = --quick ]; then
  shift
  set -- -m "not slow" "$@"
fi
# The doctor's page is tested in a browser, sweeps on a SLURM, setup.sh in two shells: installed where that can be done.
wanted=()
command -v chromedriver >/dev/null || wanted+=(chromium chromium-driver)
command -v slurmctld >/dev/null && command -v munged >/dev/null || wanted+=(slurm-wlm munge)
command -v zsh >/dev/null || wanted+=(zsh)
if [ "${#wanted[@]}" != 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "${wanted[@]}"; } >/dev/null 2>&1 || true
fi
command -v chromedriver >/dev/null ||
  echo "warning: no chromium and chromedriver, and they could not be installed: the page's browser tests are skipped" >&2
command -v slurmctld >/dev/null && command -v munged >/dev/null ||
  echo "warning: no SLURM (slurm-wlm, munge), and it could not be installed: its test is skipped" >&2
# A file's tests share what is slow to make: they stay together, in the order that conftest.py gives.
python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
)
