# Goes to this checkout, makes its .venv on first use and whenever its inputs change, and puts it on the PATH.
# Usage, in bash or zsh: source launch/setup.sh
# PYTHON=/path/to/python3 before it names the Python to make .venv with; without it the first python3 on the PATH.

_lesion_make_venv() {
  local base="${PYTHON:-python3}" stamp
  stamp="$(cat pyproject.toml launch/constraints.txt | cksum)"
  if [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; then
    [ -n "${PYTHON:-}" ] && [ "$("$PYTHON" -V 2>&1)" != "$(.venv/bin/python -V)" ] || return 0
  fi
  command -v "$base" >/dev/null || { echo "error: no $base on the PATH: install Python 3.11 or newer" >&2; return 1; }
  "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: $base is $("$base" -V): Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3" >&2; return 1; }
  echo "setup: making .venv (about two minutes, once)"
  "$base" -m venv ${PYTHON:+--clear} .venv || { echo "error: could not make .venv: is the venv module installed?" >&2; return 1; }
  # Only what is imported gets compiled, when it is (see below): a minute less.
  .venv/bin/python -m pip install --no-compile --quiet --disable-pip-version-check -c launch/constraints.txt -e '.[ocr,test]' ||
    { echo "error: the installation failed, see above; run the same command again to go on" >&2; return 1; }
  echo "$stamp" > .venv/stamp
}

cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." || return 1  # zsh has the path of a sourced file in $0
_lesion_make_venv || return 1
# Containers often forbid Python to keep what it compiles; every command would then take twice as long to start.
export PYTHONDONTWRITEBYTECODE=
# One page fault for 2 MiB instead of 4 KiB, and freed memory kept: large arrays are written 2-4 times faster.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=67108864}"
[[ ":$PATH:" == *":$PWD/.venv/bin:"* ]] || export PATH="$PWD/.venv/bin:$PATH"
