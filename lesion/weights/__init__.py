"""Foreign checkpoints to Flax variables: fetch (`known`), read (`formats`), rename (`rules`), merge (`merge`)."""

from lesion.weights.formats import read
from lesion.weights.known import fetch, find
from lesion.weights.merge import merge
from lesion.weights.rules import RULES, convert

__all__ = ["RULES", "convert", "fetch", "find", "merge", "read"]
