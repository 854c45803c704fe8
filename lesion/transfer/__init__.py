"""Transfer experiments: from a configuration to a cross-validated run."""
