r"""The configuration of a run that was made before, from its config.json.

    python -m launch.train --config=configs/recorded.py:runs/transfer_ce_t1wi/config.json \
        --data=DATA_DIR --workdir=runs/again

With the same data and weights (their hashes are in the file too) it is the same run; further --config.FIELD=VALUE
overrides make it an ablation of that run. For launch.active and launch.reproduce just so.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

ARGUMENT = "RUN/config.json"  # of --config, after the colon


def _tuples(value: Any) -> Any:
    """JSON knows lists only, configs hold tuples only."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def get_config(arg: str = "") -> ConfigDict:
    try:
        recorded = json.loads(Path(arg).read_text())["config"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"no configuration in {arg!r}: name a run's config.json, recorded.py:RUN/config.json"
        ) from error
    config = ConfigDict(_tuples(recorded))
    if config.optim.backbone_lr == config.optim.lr:
        config.optim.backbone_lr = config.optim.get_oneway_ref("lr")  # follows it, as in configs/common.py
    return config.lock()
