"""Shows what is in a checkpoint: its origin, statistics of every array, distances from another, and a Grad-CAM.

Opens Orbax checkpoints of every command here and foreign ones, whole or in part, array by array. --path is a folder of
weights, RUN/checkpoints/fold_0, RUN/checkpoints/fold_0_training, a doctor's RUN/checkpoints/model, or any other.

    python -m launch.inspect_checkpoint --path=WEIGHTS_DIR --html=weights.html
    python -m launch.inspect_checkpoint --path=RUN_DIR/checkpoints/fold_0 --against=WEIGHTS_DIR
    python -m launch.inspect_checkpoint --path=RUN_DIR/checkpoints/fold_0 --features=slice.dcm --gradcam=slice.png
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli
from lesion.inspect import features, page, reader, text

_PATH = flags.DEFINE_string("path", None, "Folder of the checkpoint; may be given without its flag.", required=True)
_AGAINST = flags.DEFINE_string("against", None, "Checkpoint to compare with: relative distance of each array.")
_HTML = flags.DEFINE_string("html", None, "Page to write: the first layer's filters, a tree to unfold.")
_FEATURES = flags.DEFINE_string("features", None, "DICOM file or PNG of a slice to run through the network of a fold.")
_GRADCAM = flags.DEFINE_string("gradcam", "gradcam.png", "--features: Grad-CAM picture to write.")
_WEIGHTS = flags.DEFINE_string("weights", "", "--features: current folder of the backbone's weights, if moved.")


def main(argv: Sequence[str]) -> None:
    del argv
    path = Path(_PATH.value)
    if _FEATURES.value:
        for line in features.describe(path, Path(_FEATURES.value), Path(_GRADCAM.value), _WEIGHTS.value):
            print(line, flush=True)
        return
    checkpoint = reader.open_checkpoint(path)
    leaves = text.print_checkpoint(checkpoint, Path(_AGAINST.value) if _AGAINST.value else None)
    if _HTML.value:
        page.write(Path(_HTML.value), checkpoint, leaves)
        print(f"\n{_HTML.value}: the same as a page")


def with_path_flag(argv: Sequence[str]) -> list[str]:
    """Returns a command line whose first argument, if it is no flag, is written as --path=..."""
    program, *arguments = argv
    if arguments and not arguments[0].startswith("-"):
        arguments[0] = f"--path={arguments[0]}"
    return [program, *arguments]


if __name__ == "__main__":
    sys.argv = with_path_flag(sys.argv)
    cli.run(main)
