"""What must stand in the environment before JAX starts."""

import importlib.metadata
import os
import sys
from collections.abc import Mapping

# On CPU, XLA's own convolution and matrix product in place of the newer library's (YNNPACK): a training step of
# ResNet-50 takes half the time. XLA ends the process at a flag it does not know: only versions that were tried get it.
CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
TRIED = ("0.10.2",)


def xla_flags(environ: Mapping[str, str], jaxlib: str) -> str | None:
    """Returns what XLA_FLAGS should be in `environ` with a version of jaxlib; None if it should stay as it is."""
    given = environ.get("XLA_FLAGS", "")
    if jaxlib not in TRIED or CPU_FLAG.partition("=")[0] in given:
        return None
    return f"{CPU_FLAG} {given}".strip()


def set_xla_flags() -> None:
    """Sets XLA_FLAGS beside what the user has set; tells in a line where JAX has read it already."""
    wanted = xla_flags(os.environ, importlib.metadata.version("jaxlib"))
    if wanted is None:
        return
    os.environ["XLA_FLAGS"] = wanted
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        print("lesion: JAX was started before lesion was imported: on CPU steps take twice as long", file=sys.stderr)
