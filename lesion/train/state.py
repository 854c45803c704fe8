"""What a training step needs next."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import optax


class TrainState(NamedTuple):
    """Parameters, BatchNorm's running statistics and the optimizer's state.

    Attributes:
        params: nested dictionaries of float32 arrays: what is trained.
        batch_stats: likewise; empty where nothing is normalised.
        opt_state: of `tx`, an `optax.inject_hyperparams` whose `learning_rate` is set from outside.
    """

    params: Mapping[str, Any]
    batch_stats: Mapping[str, Any]
    opt_state: Any


def create(params: Mapping[str, Any], batch_stats: Mapping[str, Any], tx: optax.GradientTransformation) -> TrainState:
    """A state before the first step."""
    return TrainState(params, batch_stats, tx.init(params))


def with_learning_rate(state: TrainState, learning_rate: Any) -> TrainState:
    """The state with another learning rate, float32 []."""
    hyperparams = {**state.opt_state.hyperparams, "learning_rate": learning_rate}
    return state._replace(opt_state=state.opt_state._replace(hyperparams=hyperparams))
