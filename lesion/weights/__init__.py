"""Foreign checkpoints to Flax variables: read (`formats`), rename (`rules`), merge strictly (`merge`)."""

from lesion.weights.formats import read_torch_legacy
from lesion.weights.merge import merge
from lesion.weights.rules import RULES, convert

__all__ = ["RULES", "convert", "merge", "read_torch_legacy"]
