"""Everything one report needs, run or resumed in one folder."""

from lesion.reproduce.experiments import Experiment, experiment_config, plan
from lesion.reproduce.preview import dry_run
from lesion.reproduce.run import reproduce
from lesion.train.rundir import setting_name

__all__ = ["Experiment", "dry_run", "experiment_config", "plan", "reproduce", "setting_name"]
