"""Entry points: flags and one call each."""
