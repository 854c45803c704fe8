"""A finished transfer run read back: its networks, fold by fold, as they predicted."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from flax import linen as nn
from ml_collections import ConfigDict

from lesion import files, models
from lesion.errors import UserError
from lesion.inference.choose import Prediction
from lesion.models.head import Head
from lesion.runs import checkpoint, rundir
from lesion.transfer import methods
from lesion.weights import pretrained


class Trained(NamedTuple):
    """A run of launch.train.

    Attributes:
        folder: where it lies.
        record: its config.json.
        config: its configuration.
        below: variables of the stages that were not trained, the same for all folds; {} if all were.
        folds: numbers of those that are finished.
    """

    folder: Path
    record: dict[str, Any]
    config: ConfigDict
    below: dict
    folds: tuple[int, ...]

    @property
    def model(self) -> nn.Module:
        """The backbone without classifier."""
        return models.get_model(self.config.backbone, None)

    @property
    def head(self) -> Head:
        """The classifier."""
        return Head(tuple(self.config.head.widths), self.config.head.dropout)

    @property
    def pooling(self) -> str:
        """How the last map becomes features."""
        return self.config.head.pooling or models.get_spec(self.config.backbone).pooling


def open_run(folder: Path, weights: str = "") -> Trained:
    """Reads what a run was, and the weights it started from as far as they are part of its networks.

    Args:
        folder: of launch.train.
        weights: where these weights lie now; empty: where they lay when the run was started.

    Raises:
        UserError: if it is no such run, or the weights are not those it was trained with.
    """
    try:
        record = json.loads((folder / rundir.CONFIG).read_text())
        config = ConfigDict(record["config"])
        mode, backbone, _ = config.mode, config.backbone, config.head.widths
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is no run of launch.train: name the --workdir of one") from error
    models.get_spec(backbone)
    folds = sorted(int(path.name[5:]) for path in (folder / "checkpoints").glob("fold_*") if path.name[5:].isdigit())
    if not folds:
        raise UserError(f"{folder} has no finished fold: run launch.train with --workdir={folder} to its end")
    boundary = methods.last_frozen(config)
    if mode != "frozen" and boundary is None:
        return Trained(folder, record, config, {}, tuple(folds))
    where = weights or config.weights
    if where and not Path(where).exists():
        raise UserError(f"the weights of {folder} are not in {where} any more: name their folder with --weights=DIR")
    variables, found = pretrained.load(backbone, where) if where else pretrained.random_variables(backbone, config.seed)
    if found["sha256"] != record["weights"]["sha256"]:
        raise UserError(f"{where} holds other weights than {folder} was trained with: name those with --weights=DIR")
    last = boundary or models.stage_names(backbone)[-1]
    return Trained(folder, record, config, models.split(backbone, variables, last)[0], tuple(folds))


def load_fold(run: Trained, fold: int) -> tuple[dict, dict]:
    """A fold's network: the variables of its backbone, and its head's parameters."""
    own, _ = checkpoint.load_variables(run.folder / "checkpoints" / f"fold_{fold}")
    params = own["params"]
    trained = {"params": params.get("backbone", {}), "batch_stats": own.get("batch_stats", {})}
    kinds = {**run.below, **trained}
    return {kind: {**run.below.get(kind, {}), **trained.get(kind, {})} for kind in kinds}, params["head"]


def read_predictions(run: Trained) -> list[Prediction]:
    """What each fold's network said of the slices it was not trained on.

    Raises:
        UserError: if the run is not finished, or the table is not whole.
    """
    path = run.folder / "predictions.csv"
    try:
        rows = files.read_csv(path)
        return [
            Prediction(int(r["fold"]), r["patient"], r["slice"], int(r["label"]), float(r["probability"])) for r in rows
        ]
    except FileNotFoundError as error:
        raise UserError(f"{run.folder} is not finished: run launch.train with --workdir={run.folder}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not as launch.train writes it: run that again in a new --workdir") from error
