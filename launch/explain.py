"""Grad-CAM sheet of a finished run of launch.train: where its networks look, in right, wrong and unsure slices.

Reads the run --workdir, the dataset --data that it was trained on and the weights that its config names, and writes
the folder --output: gradcam.png (the sheet), gradcam.csv (which slices, and why these), metrics.json.

    python -m launch.explain --workdir=RUN_DIR --data=DATA_DIR
    python -m launch.explain --workdir=RUN_DIR --data=DATA_DIR --stage=layer3 --output=RUN_DIR/explain_layer3
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli
from lesion.inference.choose import EACH
from lesion.inference.explain import explain_run

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run of launch.train.", required=True)
_DATA = flags.DEFINE_string("data", None, "Dataset folder written by launch.prepare.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write; default: WORKDIR/explain.")
_WEIGHTS = flags.DEFINE_string("weights", "", "Current folder of the backbone's weights, if they were moved.")
_STAGE = flags.DEFINE_string("stage", "", "Stage whose map is shown, e.g. layer3; default: the last map's.")
_EACH = flags.DEFINE_integer("each", EACH, "Most slices of a class and reason.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    del argv
    output = Path(_OUTPUT.value) if _OUTPUT.value else Path(_WORKDIR.value) / "explain"
    folders = Path(_WORKDIR.value), Path(_DATA.value), output
    done = explain_run(*folders, weights=_WEIGHTS.value, stage=_STAGE.value, each=_EACH.value)
    print(f"{output}/gradcam.png" + (": made before, kept" if done is None else ""))


if __name__ == "__main__":
    cli.run(main)
