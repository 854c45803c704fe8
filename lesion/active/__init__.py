"""Active labelling (Algorithm 1): strategies, the driver of one query, whole runs, and runs with a doctor."""
