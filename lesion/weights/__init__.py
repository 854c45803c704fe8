"""Foreign checkpoints to Flax variables."""
