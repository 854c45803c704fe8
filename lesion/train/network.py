"""The trained part of a network: a head, on the upper stages of a backbone or on features computed beforehand."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def pool_features(x: jax.Array, pooling: str) -> jax.Array:
    """Pools a map [B, H, W, C], of any type, to float32 features.

    Args:
        x: the map; or features [B, D], which stay as they are.
        pooling: `mean` or `max` to [B, C], `flatten` to [B, H·W·C].
    """
    x = x.astype(jnp.float32)
    if x.ndim == 2:
        return x
    assert x.ndim == 4, x.shape
    return {"mean": x.mean((1, 2)), "max": x.max((1, 2)), "flatten": x.reshape(len(x), -1)}[pooling]


@dataclasses.dataclass(frozen=True)
class Network:
    """A function from inputs [B, ...] to the logit of glioma, float32 [B]; its parameters are passed to its methods.

    `params` has the part `head` and, with a backbone, the part `backbone`; `batch_stats` are the backbone's.

    Attributes:
        head: module from features [B, D], or bags of features, to the logit [B], with an attribute `dropout`, its rate.
        backbone: module without classifier, called with `start`, `stop` and `mask` as those of `lesion.models`; None
            if the inputs are features.
        start: name of the last frozen stage, whose output is the input; None if the inputs are preprocessed pictures.
        stop: name of the stage whose output is pooled to features.
        pooling: see `pool_features`.
        update_statistics: whether BatchNorm, in training, normalises by the batch and updates its running statistics;
            else it uses the statistics it was given.
        own_loss: whether the head's method `loss(features [B, D], inputs, label [B]) -> (loss [B], logit [B])` is
            minimised in place of the cross-entropy.
    """

    head: Any
    backbone: nn.Module | None = None
    start: str | None = None
    stop: str = ""
    pooling: str = ""
    update_statistics: bool = True
    own_loss: bool = False

    def init(
        self,
        key: jax.Array,
        inputs: Any,
        variables: Mapping[str, Any] | None = None,
        head_params: Mapping[str, Any] | None = None,
    ) -> tuple[dict[str, Any], Any]:
        """Initialises the head at random; the backbone begins from given variables.

        Args:
            key: key of the head's parameters.
            inputs: inputs of some examples, or their shapes.
            variables: initial variables of the backbone.
            head_params: {module: parameters} for modules of the head that begin from given values.

        Returns:
            `params` and `batch_stats`.
        """
        if self.backbone is None:
            return {"head": self.head.init(key, inputs)["params"]}, {}
        assert variables is not None, "a backbone begins from variables"
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        shape = jax.eval_shape(lambda x: self.features({"backbone": params}, batch_stats, x)[0], inputs).shape
        head = self.head.init(key, jnp.zeros(shape))["params"]
        head = {name: (head_params or {}).get(name, initial) for name, initial in head.items()}
        return {"backbone": params, "head": head}, batch_stats

    def features(
        self, params: Any, batch_stats: Any, inputs: Any, train: bool = False, mask: jax.Array | None = None
    ) -> tuple[Any, Any]:
        """Returns the features, float32 [B, D], and the updated `batch_stats`.

        Args:
            params: see `Network`.
            batch_stats: see `Network`.
            inputs: [B, ...].
            train: whether BatchNorm normalises by the batch and updates its statistics.
            mask: bool [B], true for the examples that count in the statistics.
        """
        if self.backbone is None:
            return inputs, batch_stats
        x, updated = self.backbone.apply(
            {"params": params["backbone"], "batch_stats": batch_stats},
            inputs,
            train=train,
            mask=mask,
            start=self.start,
            stop=self.stop,
            mutable=["batch_stats"] if train else [],
        )
        return pool_features(x, self.pooling), updated.get("batch_stats", batch_stats)

    def apply(
        self, params: Any, batch_stats: Any, inputs: Any, mask: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, Any]:
        """Returns the logit [B] with dropout and the updated `batch_stats`: the forward pass of training.

        Every example has a key of its own in `keys` [B], so that dropout does not depend on the number of devices.
        """
        features, batch_stats = self.features(params, batch_stats, inputs, self.update_statistics, mask)
        return self._dropout_logit(params, features, keys), batch_stats

    def loss(
        self, params: Any, batch_stats: Any, inputs: Any, label: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Returns the head's own loss [B], the logit [B] and the updated `batch_stats`; `label` [B] must be 0 or 1."""
        features, batch_stats = self.features(params, batch_stats, inputs, self.update_statistics, mask)
        loss, logit = self.head.apply({"params": params["head"]}, features, inputs, label, method="loss")
        return loss, logit, batch_stats

    def predict(self, params: Any, batch_stats: Any, inputs: Any) -> jax.Array:
        """Returns the logit [B]."""
        features, _ = self.features(params, batch_stats, inputs)
        return self.head.apply({"params": params["head"]}, features)

    def sample(self, params: Any, batch_stats: Any, inputs: Any, keys: jax.Array) -> jax.Array:
        """Returns the logit [B] of a prediction with dropout in the head; `keys` [B] has a key for each example."""
        features, _ = self.features(params, batch_stats, inputs)
        return self._dropout_logit(params, features, keys)

    def embed(self, params: Any, batch_stats: Any, inputs: Any) -> jax.Array:
        """Returns the inputs of the head's last layer, [B, W]."""
        features, _ = self.features(params, batch_stats, inputs)
        return self.head.apply({"params": params["head"]}, features, embed=True)

    def _dropout_logit(self, params: Any, features: Any, keys: jax.Array) -> jax.Array:
        if not self.head.dropout:
            return self.head.apply({"params": params["head"]}, features)

        def apply_to_example(feature: Any, key: jax.Array) -> jax.Array:
            batch = jax.tree.map(lambda x: x[None], feature)
            return self.head.apply({"params": params["head"]}, batch, train=True, rngs={"dropout": key})[0]

        return jax.vmap(apply_to_example)(features, keys)
