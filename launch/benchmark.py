"""Measures speed, or how often intervals hold, and prints a table, such as those of lesion/benchmarks/README.md.

    python -m launch.benchmark --suite=phantom --input=runs/table1/dicom --markdown
    python -m launch.benchmark --suite=backbones --models=resnet50,alexnet --markdown
    python -m launch.benchmark --suite=training --config=configs/transfer.py:resnet50 --config.dtype=bfloat16
    python -m launch.benchmark --suite=active --config=configs/transfer.py:efficientnet_lite0 --config.num_epochs=5
    python -m launch.benchmark --suite=intake --num_files=5000,50000 --rounds=3
    python -m launch.benchmark --suite=fuzz --mutants=5000
    python -m launch.benchmark --suite=coverage --markdown
    python -m launch.benchmark --suite=gpu --output=runs/gpu_check

`phantom` reads a DICOM tree and keeps weights and features in --cache. `backbones` reads nothing; where keras or torch
and torchvision are installed beside this package, they take turns in the same process and a column compares. `training`
compares epochs with bare steps, on noise and with random weights; where keras is installed, a head's with its `fit`.
`active` compares Algorithm 1 with loops of modAL and Keras, where installed, and scoring pictures with bare inference.
`intake` compares prepare with dicom2nifti, where installed, on a made-up folder, and surveys folders of --num_files.
`fuzz` reads damaged DICOM files and tables and tries odd values of configurations: none may end in a traceback.
`coverage` simulates cohorts whose scores are known and counts how often the intervals of the report hold them.
`gpu` does what `bash launch/gpu_check.sh` asks of a GPU, and goes on where it ended.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import benchmarks, cli, errors

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "suite",
    "phantom",
    ["phantom", "backbones", "training", "active", "intake", "fuzz", "coverage", "gpu"],
    "What to measure.",
)
flags.DEFINE_string("input", None, "phantom: DICOM tree with patients.csv and slices.csv.")
flags.DEFINE_string("cache", "runs/benchmark", "phantom: folder for converted weights and computed features.")
flags.DEFINE_list("models", ["resnet50", "inception_v3", "alexnet"], "backbones: rows of lesion.models.MODELS.")
flags.DEFINE_integer("size", 224, "backbones: side of the images, pixels.", lower_bound=75)
flags.DEFINE_integer("batch_size", 32, "backbones: images per step.", lower_bound=1)
flags.DEFINE_integer("num_steps", 6, "training: steps per epoch.", lower_bound=1)
flags.DEFINE_list("num_files", ["5000", "10000", "20000", "50000"], "intake: files of the folders that are surveyed.")
flags.DEFINE_integer("mutants", 3000, "fuzz: of DICOM files, and as many of tables.", lower_bound=1)
flags.DEFINE_string("output", "runs/gpu_check", "gpu: folder of the results.")
flags.DEFINE_bool("small", False, "gpu: everything in small, for a CPU.")
flags.DEFINE_float("minutes", 7.5, "gpu: time after which it ends; the same command goes on.", lower_bound=0)
flags.DEFINE_integer(
    "rounds", 5, "Repetitions per contender, of which medians are printed; phantom, fuzz, coverage, gpu: none.", 1
)
flags.DEFINE_bool("bfloat16", False, "backbones: arithmetic in bfloat16 instead of float32.")
flags.DEFINE_bool("markdown", False, "Print the table as Markdown.")


def main(argv: Sequence[str]) -> None:
    # Suites are imported late: worker processes of intake import this module again and need none of the others.
    del argv
    if FLAGS.suite == "phantom":
        from lesion.benchmarks import phantom

        if not FLAGS.input:
            raise errors.UserError("no --input: name a DICOM tree, such as launch.make_phantom writes")
        rows = phantom.table(phantom.run(Path(FLAGS.input), Path(FLAGS.cache)))
    elif FLAGS.suite == "training":
        from lesion.benchmarks import training

        rows = benchmarks.table(training.run(FLAGS.config, FLAGS.num_steps, FLAGS.rounds))
    elif FLAGS.suite == "active":
        from lesion.benchmarks import active

        rows = benchmarks.table(active.run(FLAGS.config, FLAGS.rounds))
    elif FLAGS.suite == "intake":
        from lesion.benchmarks import intake

        if not FLAGS.num_files or not all(number.isdecimal() and int(number) for number in FLAGS.num_files):
            raise errors.UserError("--num_files is no list of numbers from 1 up: write it as in 5000,50000")
        rows = intake.run([int(number) for number in FLAGS.num_files], FLAGS.rounds)
    elif FLAGS.suite == "gpu":
        from lesion.benchmarks import gpu

        rows = gpu.run(FLAGS.config, Path(FLAGS.output), FLAGS.small, FLAGS.minutes)
    elif FLAGS.suite == "fuzz":
        from lesion.benchmarks import fuzz

        rows = fuzz.run(FLAGS.mutants)
    elif FLAGS.suite == "coverage":
        from lesion.benchmarks import coverage

        rows = coverage.table(coverage.run())
    else:
        from lesion.benchmarks import backbones

        rows = backbones.table(backbones.run(FLAGS.models, FLAGS.size, FLAGS.batch_size, FLAGS.rounds, FLAGS.bfloat16))
    print(benchmarks.render(rows, FLAGS.markdown))


if __name__ == "__main__":
    cli.run(main, "configs/transfer.py:resnet50")
