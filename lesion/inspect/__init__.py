"""Reads a checkpoint leaf by leaf, measures it, compares it with another, shows it as text and as a page."""
