"""From a configuration to a cross-validated run."""
