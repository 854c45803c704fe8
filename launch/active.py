"""Active labelling, Algorithm 1, against random choice on one sequence (Figs 9-11), or with a doctor who answers.

Reads the dataset --data (made by launch.prepare) and writes the folder --workdir:
config.json, acquisitions.csv, curves.csv, stops.csv (where each rule would have stopped), runs.csv, metrics.json.
The same command again goes on where it was stopped or killed, and finds what is finished.

    python -m launch.active --config=configs/active.py:efficientnet_lite0,ce_t1wi \
        --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR

With --config=configs/doctor.py:BACKBONE,SEQUENCE it asks for labels that the dataset lacks: each call goes on as far as
the answers reach, launch.annotate takes them.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import errors
from lesion.active.doctor import run_doctor
from lesion.active.experiment import check_asking, run_active
from lesion.train.loop import load

FLAGS = flags.FLAGS
errors.define_config("configs/active.py")
flags.DEFINE_string("data", None, "Dataset folder written by launch.prepare.", required=True)
flags.DEFINE_string("workdir", None, "Folder of this run.", required=True)


def main(argv: Sequence[str]) -> None:
    del argv
    config, data, workdir = FLAGS.config, Path(FLAGS.data), Path(FLAGS.workdir)
    check_asking(config)
    if config.oracle == "doctor":
        print(run_doctor(config, load(config, data, with_folds=False), workdir))
        return
    run_active(config, load(config, data), workdir)
    print(f"{FLAGS.workdir}: done; python -m launch.report --workdir={FLAGS.workdir} shows it")


if __name__ == "__main__":
    errors.run(main)
