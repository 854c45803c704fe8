"""One module per experiment, each with `get_config(arg)`."""
