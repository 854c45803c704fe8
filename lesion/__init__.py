"""Encephalitis or glioma on routine MRI, with few labels."""

from lesion import environment

environment.set_xla_flags()
