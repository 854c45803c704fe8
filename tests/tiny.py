"""A tiny backbone with BatchNorm, 40 slices of 10 patients, and what launch.train does, on them."""

import functools
import multiprocessing
import os
import sys
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn

from configs import active, transfer
from lesion import cli, models
from lesion.active import experiment
from lesion.dataset import Slices, splits
from lesion.models import capsnet
from lesion.models.layers import BatchNorm, Conv
from lesion.models.stages import Backbone
from lesion.runs import rundir
from lesion.train import devices
from lesion.transfer import loading
from lesion.transfer.checks import check_config
from lesion.transfer.methods import run_transfer

ROOT = Path(__file__).parents[1]
SIDE = 16


class Tiny(Backbone):
    def stages(self, train, mask=None):
        def block(i, features):
            return [(f"conv{i}", lambda x: Conv(features, (3, 3), 2, name=f"conv{i}")(x)), (f"bn{i}", norm(i))]

        def norm(i):
            one = functools.partial(BatchNorm, not train, 0.9, 1e-3, axis_name=self.axis_name, name=f"bn{i}")
            return lambda x: nn.relu(one()(x, mask))

        return [*block(1, 8), *block(2, 8), ("avgpool", lambda x: x.mean((1, 2)))]


SPEC = models.ModelSpec(Tiny, SIDE, models.lite, 8, 0, "tiny", "bn2")
BASELINE_SIDE = 20
BASELINES = {
    "tiny_capsnet": models.BASELINES["capsnet"]._replace(
        model=models.get_spec("capsnet")._replace(
            module=functools.partial(capsnet.CapsuleTrunk, (4, 16), impl="lax"),
            input_size=BASELINE_SIDE,
            feature_width=64,
        ),
        head=functools.partial(capsnet.CapsuleHead, BASELINE_SIDE, 8),
    ),
    "tiny_svm": models.BASELINES["cnn_f_svm"]._replace(model=SPEC),
}
SVM = {"num_features": 4, "c": 1.0, "augmented": True}
BASELINE_RUNS = {
    "tiny_capsnet": {"mode": "scratch", "head_widths": (), "class_weights": True},
    "tiny_svm": {"mode": "frozen", "head_widths": (), "svm": SVM},
}


def slices(n=40, seed=0):
    """Noise, brighter in one half where the label is 1; four slices a patient."""
    rng = np.random.default_rng(seed)
    patient = np.array([f"p{i // 4}" for i in range(n)])
    label = (np.arange(n) // 4 % 2).astype(np.int32)
    image = rng.integers(0, 160, (n, SIDE, SIDE), np.uint8)
    image[label == 1, : SIDE // 2] += 60
    ids, spacing, height = np.array([f"s{i:02d}" for i in range(n)]), np.ones((n, 2), np.float32), np.arange(n)
    return Slices(image, label, patient, ids, spacing, height.astype(np.float32))


START = {"num_epochs": 3, "batch_size": 6, "num_copies": 1, "num_folds": 2}
START |= {"optim_lr": 0.01, "optim_backbone_lr": 0.01, "head_widths": (8,)}


def config(**changes):
    """A finetune config; `optim.lr` may be written `optim_lr`."""
    return changed(transfer.get_config("tiny,flair"), START | {"mode": "finetune"} | changes)


def active_config(**changes):
    """A config of active labelling, two strategies, eight runs and four with all labels."""
    small = {
        "initial_labeled": 4,
        "num_acquire": 3,
        "num_rounds": 3,
        "num_repeats": 2,
        "seed": 1,  # every first set is two patients, one of each class
        "strategies": ("entropy", "k_centre"),
    }
    return changed(active.get_config("tiny,flair"), START | small | changes)


def changed(made, changes):
    made = made.copy_and_resolve_references()
    with made.unlocked():
        for name, value in changes.items():
            part, _, field = name.partition("_")
            if part in ("optim", "head"):
                made[part][field] = value
            else:
                made[name] = value
    return made.lock()


def setup(made, data_dir):
    """What `loading.load` would have read."""
    given = slices()
    variables, weights = loading.load_weights(made)
    folds = splits.make(given.label, given.patient, made.num_folds, made.seed)
    run = rundir.identity(made, {"fingerprint": "tiny", "phantom": True}, folds.hash, weights, "cpu")
    return loading.Setup(Path(data_dir), given, folds, variables, run)


def forked(patch):
    """A context whose processes are forked from one that has everything imported but no device yet."""
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tiny"])
    return context


def label(workdir, **changes):
    """What launch.active does, in a process of its own."""
    models.MODELS["tiny"] = SPEC

    def main(argv):
        del argv
        made = active_config(**changes)
        experiment.run_active(made, setup(made, f"{workdir}_data"), Path(workdir))

    sys.argv = ["tiny"]
    cli.run(main)


def train(workdir, changes, num_devices=1, processes=None):
    """What launch.train does, in a process of its own.

    Args:
        workdir: of the run.
        changes: of `config`.
        num_devices: of this process.
        processes: (address of the first, how many, number of this one); or the environment of a SLURM task.
    """
    models.MODELS["tiny"] = SPEC
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", num_devices)
    if isinstance(processes, dict):
        os.environ.update(processes)

    def main(argv):
        del argv
        devices.connect(*(processes if isinstance(processes, tuple) else (None, None, None)))
        made = config(**changes)
        check_config(made)
        run_transfer(made, setup(made, f"{workdir}_data"), Path(workdir))

    sys.argv = ["tiny"]
    cli.run(main)
