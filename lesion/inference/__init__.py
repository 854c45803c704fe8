"""Applies a finished run: Grad-CAM sheets of its test slices, and predictions for new patients."""
