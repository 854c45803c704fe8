r"""The configuration of an earlier run, from its config.json.

    python -m launch.train --config=configs/recorded.py:runs/transfer_ce_t1wi/config.json \
        --data=DATA_DIR --workdir=runs/again

With the same data and weights (their hashes are in the file too) it is the same run; further --config.FIELD=VALUE
overrides make it an ablation of that run. Works with launch.active and launch.reproduce, too.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

ARGUMENT = "RUN/config.json"  # of --config, after the colon
# Fields that follow another where they are equal to it, as in configs/transfer.py and configs/plan.py.
FOLLOWS = {
    "optim": {"backbone_lr": "lr"},
    "transfer": {name: name for name in ("mode", "finetune_from", "augmentation", "patience")},
}


def _tuples(value: Any) -> Any:
    """Turns lists into tuples: JSON has lists only, configurations hold tuples only."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def get_config(arg: str = "") -> ConfigDict:
    """Returns the recorded configuration."""
    try:
        recorded = json.loads(Path(arg).read_text())["config"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"no configuration in {arg!r}: name a run's config.json, recorded.py:RUN/config.json"
        ) from error
    config = ConfigDict(_tuples(recorded))
    for group, names in FOLLOWS.items():
        for name, followed in names.items():
            source = config.optim if group == "optim" else config
            if group in config and config[group][name] == source[followed]:
                config[group][name] = source.get_oneway_ref(followed)
    return config.lock()
