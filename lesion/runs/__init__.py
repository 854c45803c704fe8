"""Run folders: a run's identity and results, its checkpoints, how it stops and resumes."""
