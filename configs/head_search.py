r"""Which head: depth, widths, dropout and pooling, as the paper tried "numbers of layers and nodes" (section 1.2).

    python -m launch.train --config=configs/head_search.py:efficientnet_lite0,ce_t1wi \
        --config.head.widths=256 --config.weights=WEIGHTS --data=DATA_DIR --workdir=runs/head_256
    python -m launch.sweep --config=configs/head_search.py:efficientnet_lite0,ce_t1wi \
        --config.weights=WEIGHTS --data=DATA_DIR --workdir=runs/heads

One run per setting of `sweep`; all share the cached features, so that each costs seconds. The paper kept 512-256.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from configs import transfer

ARGUMENT = "BACKBONE,SEQUENCE"  # of --config, after the colon
WIDTHS = ((), (256,), (512,), (512, 256), (1024, 512), (512, 256, 128))


def get_config(arg: str = "") -> ConfigDict:
    """Returns feature transfer as in configs/transfer.py, which explains each field."""
    return transfer.get_config(arg)


def sweep(add: Callable[..., Any]) -> None:
    """Calls `add` with the overrides of each run."""
    for widths in WIDTHS:
        for dropout in (0.0, 0.5):
            add(**{"head.widths": widths, "head.dropout": dropout})
    for pooling in ("max", "flatten"):
        add(**{"head.widths": (512, 256), "head.pooling": pooling})
