# Sourced by the other scripts: makes .venv on first use and whenever its inputs change.
# Usage: source launch/setup.sh
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

stamp="$(cat pyproject.toml launch/constraints.txt | cksum)"
if [ "$(cat .venv/stamp 2>/dev/null)" != "$stamp" ]; then
  base="${PYTHON:-python3}"
  command -v "$base" >/dev/null || { echo "error: no $base on the PATH: install Python 3.11 or newer" >&2; exit 1; }
  "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: $base is $("$base" -V): Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3" >&2; exit 1; }
  echo "setup: making .venv (about two minutes, once)"
  "$base" -m venv .venv || { echo "error: could not make .venv: is the venv module installed?" >&2; exit 1; }
  # Only what is imported gets compiled, when it is (see below): a minute less.
  .venv/bin/python -m pip install --no-compile --quiet --disable-pip-version-check -c launch/constraints.txt -e '.[test]' ||
    { echo "error: the installation failed, see above; run the same command again to go on" >&2; exit 1; }
  echo "$stamp" > .venv/stamp
fi
# Containers often forbid Python to keep what it compiles; every command would then take twice as long to start.
export PYTHONDONTWRITEBYTECODE=
# One page fault for 2 MiB instead of 4 KiB, and freed memory kept: large arrays are written 2-4 times faster.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=67108864}"
# On CPU, XLA's own convolution and product instead of the new library's (YNNPACK): inference 1.16 times faster.
[[ "${XLA_FLAGS:-}" == *ynn_fusion* ]] ||
  export XLA_FLAGS="--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE${XLA_FLAGS:+ $XLA_FLAGS}"
export PATH="$PWD/.venv/bin:$PATH"
