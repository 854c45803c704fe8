"""Inspection of checkpoints: reads and measures them leaf by leaf, compares two, shows them as text and as a page."""
