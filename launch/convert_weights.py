"""Converts a public checkpoint to an Orbax checkpoint of a Flax backbone.

Reads --input, or fetches the public file that third_party/imagenet_weights/files.toml names; writes the folder
--output: `variables` (Orbax) and `provenance.json`.

    python -m launch.convert_weights --model=resnet50 --source=torchvision --output=runs/weights/resnet50
    python -m launch.convert_weights --model=resnet50_v1 --source=keras --input=FILE.h5 --output=runs/weights/v1
    python -m launch.convert_weights --model=cnn_f --source=matconvnet --input=imagenet-vgg-f.mat --output=WEIGHTS
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli, files
from lesion.weights import pretrained

FLAGS = flags.FLAGS
SOURCES = ["torchvision", "timm", "keras", "onnx", "lite", "matconvnet"]
flags.DEFINE_string("model", "efficientnet_lite0", "Backbone, a row of lesion.models.MODELS.")
flags.DEFINE_enum("source", "lite", SOURCES, "Library whose names and layout the file has.")
flags.DEFINE_string("input", None, "File to read; default: the public one, fetched (lite: from an installed package).")
flags.DEFINE_string("output", None, "Folder to write.", required=True)


def main(argv: Sequence[str]) -> None:
    del argv
    with files.locked(Path(FLAGS.output), wait=True):
        record = pretrained.convert_file(FLAGS.model, FLAGS.source, FLAGS.input, FLAGS.output)
    print(f"{FLAGS.output}: {FLAGS.model} from {record['file']}, sha256 {record['sha256'][:12]}")
    if "left_out" in record:
        print(f"left out, since only features are used: {record['left_out']}")


if __name__ == "__main__":
    cli.run(main)
