"""One slice through the network of a checkpoint: what it says, what each stage gives, where it looks."""

from collections.abc import Iterator
from pathlib import Path

from lesion import models
from lesion.dataset import slice_file
from lesion.errors import UserError
from lesion.inference import activations, explain, sheet, trained_run


def tell(path: Path, file: Path, picture: Path, weights: str = "") -> Iterator[str]:
    """Lines on a slice; its Grad-CAM goes to a picture.

    Args:
        path: of a fold of launch.train, RUN/checkpoints/fold_K.
        file: of a DICOM image or a PNG.
        picture: to write.
        weights: where the backbone's converted weights lie now, if they were moved.

    Raises:
        UserError: if the checkpoint is no fold, or the file no picture.
    """
    path = path.absolute()
    number = path.name.removeprefix("fold_")
    if not (number.isdigit() and path.parent.name == "checkpoints"):
        raise UserError(f"--features needs a whole network, a fold of launch.train: RUN/checkpoints/fold_0, not {path}")
    slice_, run = slice_file.read_single(file), trained_run.open_run(path.parents[1], weights)
    network = trained_run.load_fold(run, int(number))
    yield f"one slice: {slice_.how}"
    if slice_.sequence != run.config.sequence:
        what = f"is {slice_.sequence}" if slice_.sequence else "does not tell its sequence"
        yield f"WARNING: the network was trained on {run.config.sequence}, this slice {what}: it may mean nothing"
    (look,) = explain.build(run)(network, slice_.image[None])
    yield f"called {look.called}, probability of glioma {look.probability:.4f} (research use only)"
    at = sheet.peak(look.heat, len(slice_.image))
    where = f"most speaks for {look.called} at row {at[0]:.0f}, column {at[1]:.0f}" if at else "no place speaks for it"
    yield f"{where} of 224×224: {picture}"
    title = f"{models.get_spec(run.config.backbone).title}, fold {number}: where the network looks"
    words = f"called {look.called}, probability of glioma {look.probability:.2f}"
    rows = [sheet.Row("slice", [sheet.Panel(slice_.image, look.heat, words)])]
    sheet.draw(picture, rows, title, [], run.record["phantom"] or slice_.phantom)
    yield ""
    columns = ("stage", "shape", "mean", "spread", "largest", "zeros", "dead channels")
    yield "{:<16} {:<14} {:>10} {:>10} {:>10} {:>8} {:>14}".format(*columns)
    for one in activations.look(run, network[0], slice_.image):
        shape, bad = "×".join(map(str, one.shape)), f"  {one.not_finite:,} NOT FINITE" if one.not_finite else ""
        numbers = f"{one.mean:>10.4g} {one.spread:>10.4g} {one.largest:>10.4g} {one.zeros:>8.1%} {one.dead:>14.1%}"
        yield f"{one.stage:<16} {shape:<14} {numbers}{bad}"
