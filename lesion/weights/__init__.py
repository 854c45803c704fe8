"""Conversion of foreign checkpoints: fetched (`public_files`), read (`formats`), renamed (`rules`), and merged."""

from lesion.weights.formats import read
from lesion.weights.merge import merge
from lesion.weights.rules import RULES, convert

__all__ = ["RULES", "convert", "merge", "read"]
