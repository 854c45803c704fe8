"""Runs a slice through a checkpoint's network: its answer, its Grad-CAM, statistics of each stage's activations."""

from collections.abc import Iterator
from pathlib import Path

from lesion import models
from lesion.dataset import slice_file
from lesion.errors import UserError
from lesion.inference import activations, explain, sheet, trained_run


def describe(path: Path, file: Path, picture: Path, weights: str = "") -> Iterator[str]:
    """Yields lines of text on a slice and writes its Grad-CAM.

    Args:
        path: folder of a fold of launch.train, RUN/checkpoints/fold_K.
        file: path of a DICOM image or a PNG.
        picture: path of the Grad-CAM to write.
        weights: current folder of the backbone's converted weights, if they were moved.

    Raises:
        UserError: if the checkpoint is not a fold, or the file not an image.
    """
    path = path.absolute()
    number = path.name.removeprefix("fold_")
    if not (number.isdigit() and path.parent.name == "checkpoints"):
        raise UserError(f"--features needs a whole network, a fold of launch.train: RUN/checkpoints/fold_0, not {path}")
    slice_, run = slice_file.read_slice(file), trained_run.open_run(path.parents[1], weights)
    network, explain_slices = trained_run.load_fold(run, int(number)), explain.make_explain(run)
    yield f"one slice: {slice_.description}"
    if slice_.sequence != run.config.sequence:
        sequence = f"is {slice_.sequence}" if slice_.sequence else "does not tell its sequence"
        yield f"WARNING: the network was trained on {run.config.sequence}, this slice {sequence}: it may mean nothing"
    (result,) = explain_slices(network, slice_.image[None])
    called, probability = run.classes[result.called], f"probability of {run.classes.positive}"
    yield f"called {called}, {probability} {result.probability:.4f} (research use only)"
    peak = sheet.peak(result.heat, len(slice_.image))
    speaks = f"most speaks for {called} at row {peak[0]:.0f}, column {peak[1]:.0f}" if peak else ""
    yield f"{speaks or 'no place speaks for it'} of 224×224: {picture}"
    title = f"{models.get_spec(run.config.backbone).title}, fold {number}: where the network looks"
    caption = f"called {called}, {probability} {result.probability:.2f}"
    rows = [sheet.Row("slice", [sheet.Panel(slice_.image, result.heat, caption)])]
    sheet.draw(picture, rows, title, [], run.record["phantom"] or slice_.phantom)
    yield ""
    columns = ("stage", "shape", "mean", "spread", "largest", "zeros", "dead channels")
    yield "{:<16} {:<14} {:>10} {:>10} {:>10} {:>8} {:>14}".format(*columns)
    for stage in activations.measure_stages(run, network, slice_.image):
        shape = "×".join(map(str, stage.shape))
        numbers = f"{stage.mean:>10.4g} {stage.spread:>10.4g} {stage.largest:>10.4g}"
        warning = f"  {stage.not_finite:,} NOT FINITE" if stage.not_finite else ""
        yield f"{stage.stage:<16} {shape:<14} {numbers} {stage.zeros:>8.1%} {stage.dead:>14.1%}{warning}"
