"""Two settings of a tiny network that come to the same numbers."""

from configs import transfer

TINY = {"mode": "finetune", "num_epochs": 12, "num_folds": 2, "num_copies": 0, "batch_size": 8, "head.widths": (4,)}


def get_config(arg=""):
    config = transfer.get_config(arg or "tiny,ce_t1wi").unlock()
    config.update_from_flattened_dict(TINY)
    return config.lock()


def sweep(add):
    add(checkpoint_every=1)
    add(checkpoint_every=1000)
