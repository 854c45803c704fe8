"""Folders of runs: what a run is of, its checkpoints, how it is stopped and goes on."""
