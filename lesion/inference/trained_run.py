"""Reads a finished transfer run back: its record, its predictions, and the network of each fold."""

from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lesion import files, models
from lesion.classes import Classes
from lesion.errors import UserError
from lesion.inference.choose import Prediction
from lesion.runs import checkpoint, rundir
from lesion.train.network import Network
from lesion.transfer.methods import head_of, last_frozen_stage
from lesion.weights import pretrained

SEVERAL = "{} is a fusion, whose networks take several sequences: name a run of one sequence"


class TrainedRun(NamedTuple):
    """A run of launch.train.

    Attributes:
        folder: folder of the run.
        record: contents of its config.json.
        config: its configuration.
        frozen_variables: variables of the stages that were not trained, the same for all folds; {} if all were.
        folds: numbers of the finished folds.
    """

    folder: Path
    record: dict[str, Any]
    config: ConfigDict
    frozen_variables: dict
    folds: tuple[int, ...]

    @property
    def classes(self) -> Classes:
        """Names of the classes that it tells apart."""
        return Classes.of(self.record["data"])

    @property
    def network(self) -> Network:
        """Network of every fold: the backbone without classifier, from pictures to its last map, and the head.

        The head is None if a support vector machine is in its place, see `svm.probability`.
        """
        spec = models.get_spec(self.config.backbone)
        pooling = self.config.head.pooling or spec.pooling
        model = models.get_model(self.config.backbone, None)
        return Network(head_of(self.config), model, stop=spec.last_map, pooling=pooling)


class FoldVariables(NamedTuple):
    """Variables of a fold's network: `params` and `batch_stats` as methods of `TrainedRun.network` take them."""

    params: dict[str, Any]
    batch_stats: dict[str, Any]

    @property
    def backbone(self) -> dict[str, Any]:
        """Variables of the backbone."""
        return {"params": self.params["backbone"], "batch_stats": self.batch_stats}


def open_run(folder: Path, weights: str = "") -> TrainedRun:
    """Reads a run's record, and the weights it started from where they are still part of its networks.

    Args:
        folder: folder of a run of launch.train.
        weights: current folder of these weights; empty: the folder they were in when the run was started.

    Raises:
        UserError: if `folder` is no such run, or the weights are not those it was trained with.
    """
    if any(folder.glob(f"only_*/{rundir.CONFIG}")):
        raise UserError(SEVERAL.format(folder))
    try:
        record = files.read_json(folder / rundir.CONFIG)
        config = ConfigDict(record["config"])
        mode, backbone, _ = config.mode, config.backbone, config.head.widths
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is no run of launch.train: name the --workdir of one") from error
    if "fusion" in config:
        raise UserError(SEVERAL.format(folder))
    if "strategies" in config:
        raise UserError(
            f"{folder} is a run of launch.active, which keeps no network of a fold: name one of launch.train"
        )
    models.get_spec(backbone)
    folds = sorted(int(path.name[5:]) for path in (folder / "checkpoints").glob("fold_*") if path.name[5:].isdigit())
    if not folds:
        raise UserError(f"{folder} has no finished fold: run launch.train with --workdir={folder} to its end")
    boundary = last_frozen_stage(config)
    if mode != "frozen" and boundary is None:
        return TrainedRun(folder, record, config, {}, tuple(folds))
    directory = weights or config.weights
    if directory and not Path(directory).exists():
        raise UserError(
            f"the weights of {folder} are not in {directory} any more: name their folder with --weights=DIR"
        )
    if directory:
        variables, provenance = pretrained.load(backbone, directory)
    else:
        variables, provenance = pretrained.random_variables(backbone, config.seed)
    if provenance["sha256"] != record["weights"]["sha256"]:
        raise UserError(
            f"{directory} holds other weights than {folder} was trained with: name those with --weights=DIR"
        )
    last = boundary or models.stage_names(backbone)[-1]
    return TrainedRun(folder, record, config, models.split(backbone, variables, last)[0], tuple(folds))


def load_fold(run: TrainedRun, fold: int) -> FoldVariables:
    """Loads the network of a fold: its trained variables, and those of the frozen stages below them."""
    own, _ = checkpoint.load_variables(run.folder / "checkpoints" / f"fold_{fold}")
    backbone = {**run.frozen_variables.get("params", {}), **own["params"].get("backbone", {})}
    batch_stats = {**run.frozen_variables.get("batch_stats", {}), **own.get("batch_stats", {})}
    return FoldVariables({"backbone": backbone, "head": own["params"]["head"]}, batch_stats)


def read_predictions(run: TrainedRun) -> list[Prediction]:
    """Reads the predictions of each fold's network for the slices it was not trained on.

    Raises:
        UserError: if the run is not finished, or the table is damaged.
    """
    path = run.folder / "predictions.csv"
    try:
        return [
            Prediction(int(r["fold"]), r["patient"], r["slice"], int(r["label"]), float(r["probability"]))
            for r in files.read_csv(path)
        ]
    except FileNotFoundError as error:
        raise UserError(f"{run.folder} is not finished: run launch.train with --workdir={run.folder}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not as launch.train writes it: run that again in a new --workdir") from error
