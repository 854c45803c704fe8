"""Everything one report needs, run or resumed in one folder."""

from lesion.reproduce.experiments import Experiment, experiment_config, plan, setting_name
from lesion.reproduce.preview import dry_run
from lesion.reproduce.run import reproduce

__all__ = ["Experiment", "dry_run", "experiment_config", "plan", "reproduce", "setting_name"]
