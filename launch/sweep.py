r"""Every setting that a configuration's `sweep(add)` names, as jobs of a SLURM cluster or of this machine.

Reads the dataset --data (made by launch.prepare) and writes a folder a setting into --workdir, each as launch.train or
launch.active would, and --workdir/submitit with the logs. Shows what waits, runs, failed and is finished. Ctrl-C ends
the showing, not the jobs; the same command again comes back to them and submits only what is missing. Jobs that SLURM
takes off their node, or whose time is over, save, wait in the queue again and go on.

    python -m launch.sweep --config=configs/head_search.py:efficientnet_lite0,ce_t1wi \
        --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR --dry_run
    python -m launch.sweep --config=configs/head_search.py --executor=slurm --partition=gpu --gpus=1 --timeout_min=120 \
        --parallel=8 --data=DATA_DIR --workdir=RUN_DIR --config.weights=WEIGHTS_DIR

With --executor=slurm all three folders must be seen by every node.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lesion import cli
from lesion.experiments import executors, settings, sweep

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Dataset folder written by launch.prepare.", required=True)
flags.DEFINE_string("workdir", None, "Folder of the sweep.", required=True)
flags.DEFINE_bool("dry_run", False, "Check everything, tell what would run and write nothing.")
flags.DEFINE_enum("executor", "local", ["local", "slurm"], "Who runs the jobs: this machine, or a SLURM array.")
flags.DEFINE_integer("parallel", None, "Jobs at once, at most; default: local one a GPU, slurm all.", lower_bound=1)
flags.DEFINE_string("partition", None, "slurm: of the cluster; default: its own.")
flags.DEFINE_integer("gpus", None, "slurm: GPUs a job.", lower_bound=0)
flags.DEFINE_integer("cpus", None, "slurm: CPU cores a job.", lower_bound=1)
flags.DEFINE_integer("mem_gb", None, "slurm: memory a job, GB.", lower_bound=1)
flags.DEFINE_integer("timeout_min", 240, "slurm: minutes; a job that needs more saves and queues again.", lower_bound=5)
flags.DEFINE_list("sbatch", [], "slurm: further options of sbatch, such as account=NAME,constraint=a100.")


def _executor(folder: Path) -> executors.Executor:
    if FLAGS.executor == "local":
        return executors.local(folder, FLAGS.parallel)
    given = {
        "job_name": "lesion",
        "partition": FLAGS.partition,
        "time": FLAGS.timeout_min,
        "gpus_per_node": FLAGS.gpus,
        "cpus_per_task": FLAGS.cpus,
        "mem": FLAGS.mem_gb and f"{FLAGS.mem_gb}GB",
    }
    extra = dict(option.partition("=")[::2] for option in FLAGS.sbatch)
    return executors.slurm(folder, FLAGS.parallel, given, extra)


def main(argv: Sequence[str]) -> None:
    del argv
    file, overrides = cli.config_source()
    todo = settings.settings(cli.load_module(file), file, FLAGS.config, overrides)
    data, workdir = Path(FLAGS.data), Path(FLAGS.workdir)
    if FLAGS.dry_run:
        print(sweep.dry_run(todo, data, workdir, f"as jobs of {FLAGS.executor}"))
        return
    sweep.sweep(todo, data, workdir, _executor)
    print(f"{FLAGS.workdir}: done")


if __name__ == "__main__":
    cli.run(main, "configs/head_search.py")
