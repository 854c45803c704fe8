"""One configuration in many settings, as jobs: of a SLURM cluster, or of this machine."""

from lesion.sweep.run import dry_run, sweep
from lesion.sweep.settings import Setting, settings

__all__ = ["Setting", "dry_run", "settings", "sweep"]
