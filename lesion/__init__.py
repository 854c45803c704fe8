"""Encephalitis or glioma on routine MRI, with few labels."""
