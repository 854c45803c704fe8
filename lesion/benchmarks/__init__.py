"""Measurements anyone can repeat: whether the phantom is neither trivial nor noise."""
