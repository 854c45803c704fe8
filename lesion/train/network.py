"""The trainable part of a network: a head, on the upper stages of a backbone or on features computed before."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def pool_features(x: jax.Array, pooling: str) -> jax.Array:
    """Pools a last map [B, H, W, C] by `mean` or `max` to [B, C], by `flatten` to [B, H·W·C]; keeps features [B, D]."""
    if x.ndim == 2:
        return x
    assert x.ndim == 4, x.shape
    return {"mean": x.mean((1, 2)), "max": x.max((1, 2)), "flatten": x.reshape(len(x), -1)}[pooling]


@dataclasses.dataclass(frozen=True)
class Network:
    """A function of inputs [B, ...] to the logit of glioma [B] float32; parameters are arguments of its methods.

    `params` has the part `head` and, with a backbone, the part `backbone`; `batch_stats` are the backbone's.

    Attributes:
        head: features [B, D], or bags of features, to logit [B]; a module with a rate of `dropout`.
        backbone: a module without classifier, `apply(..., start=, stop=, mask=)` as in `lesion.models`. None: the
            inputs are features.
        start: the last stage that is not trained, whose output the inputs are; None: inputs are preprocessed pictures.
        stop: the stage that gives the last map.
        pooling: see `pool_features`.
        update_statistics: whether BatchNorm normalises by the batch and updates its running statistics in training, or
            uses those it came with.
        own_loss: whether the head's method `loss(features [B, D], inputs, label [B]) -> (loss [B], logit [B])` is
            minimised in the place of the cross-entropy of the logit.
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
        """Initialises the head at random.

        Args:
            key: of the head's parameters.
            inputs: arrays, or their shapes, of some examples.
            variables: what the backbone begins from.
            head_params: {module: parameters} of modules of the head that begin from given values.

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
        """Returns the head's inputs, float32 [B, D], and the batch statistics after them.

        Args:
            params: see `Network`.
            batch_stats: see `Network`.
            inputs: [B, ...].
            train: whether BatchNorm normalises by the batch and updates its statistics.
            mask: bool [B], the examples that count in them.
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
        return pool_features(x, self.pooling).astype(jnp.float32), updated.get("batch_stats", batch_stats)

    def apply(
        self, params: Any, batch_stats: Any, inputs: Any, mask: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, Any]:
        """Returns the logit [B] and the batch statistics, as in training.

        Every example has its own key of `keys` [B]: dropout does not depend on how a batch is spread over devices.
        """
        features, batch_stats = self.features(params, batch_stats, inputs, self.update_statistics, mask)
        return self._dropout_logit(params, features, keys), batch_stats

    def loss(
        self, params: Any, batch_stats: Any, inputs: Any, label: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Returns the head's own loss [B], the logit [B] and the batch statistics; `label` [B] is 0 or 1 everywhere."""
        features, batch_stats = self.features(params, batch_stats, inputs, self.update_statistics, mask)
        loss, logit = self.head.apply({"params": params["head"]}, features, inputs, label, method="loss")
        return loss, logit, batch_stats

    def predict(self, params: Any, batch_stats: Any, inputs: Any) -> jax.Array:
        """Returns the logit [B]."""
        features, _ = self.features(params, batch_stats, inputs)
        return self.head.apply({"params": params["head"]}, features)

    def sample(self, params: Any, batch_stats: Any, inputs: Any, keys: jax.Array) -> jax.Array:
        """Returns the logit [B] as predicted but for dropout in the head, a key of `keys` [B] an example."""
        features, _ = self.features(params, batch_stats, inputs)
        return self._dropout_logit(params, features, keys)

    def embed(self, params: Any, batch_stats: Any, inputs: Any) -> jax.Array:
        """Returns what the last layer sees, [B, W]."""
        features, _ = self.features(params, batch_stats, inputs)
        return self.head.apply({"params": params["head"]}, features, embed=True)

    def _dropout_logit(self, params: Any, features: Any, keys: jax.Array) -> jax.Array:
        if not self.head.dropout:
            return self.head.apply({"params": params["head"]}, features)

        def apply_to_example(feature: Any, key: jax.Array) -> jax.Array:
            batch = jax.tree.map(lambda x: x[None], feature)
            return self.head.apply({"params": params["head"]}, batch, train=True, rngs={"dropout": key})[0]

        return jax.vmap(apply_to_example)(features, keys)
