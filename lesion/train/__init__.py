"""Learners, steps, and the impure shell around them."""
