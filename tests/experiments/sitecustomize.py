"""On PYTHONPATH, so that every process knows the tiny backbone: a job is told its name only."""

import sys

if "submitit.local._local" not in sys.orig_argv:  # which only starts a job
    import tiny

    from lesion import models

    models.MODELS["tiny"] = tiny.SPEC
