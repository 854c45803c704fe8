"""Environment variables that must be set before JAX starts."""

import importlib.metadata
import os
import sys
from collections.abc import Mapping

# Makes XLA use its own convolution and matrix product on CPU, not YNNPACK's: a training step of ResNet-50 takes half
# the time. XLA ends the process at a flag it does not know, so the flag is set only for versions it was tried with.
CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
TRIED = ("0.10.2",)


def xla_flags(environ: Mapping[str, str], jaxlib: str) -> str | None:
    """Returns the value XLA_FLAGS should have, given the version of jaxlib; None if it should stay as it is."""
    given = environ.get("XLA_FLAGS", "")
    if jaxlib not in TRIED or CPU_FLAG.partition("=")[0] in given:
        return None
    return f"{CPU_FLAG} {given}".strip()


def set_xla_flags() -> None:
    """Adds the flag to the user's XLA_FLAGS; prints a warning if JAX has already read them."""
    new_value = xla_flags(os.environ, importlib.metadata.version("jaxlib"))
    if new_value is None:
        return
    os.environ["XLA_FLAGS"] = new_value
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        print("lesion: JAX was started before lesion was imported: on CPU steps take twice as long", file=sys.stderr)
