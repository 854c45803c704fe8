"""What is trained, as three functions: a head on features, or the upper part of a backbone with its head."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn


class Network(NamedTuple):
    """A trainable function of inputs [B, ...] to the logit of glioma [B] float32; nothing is remembered.

    Attributes:
        init: (key, inputs) -> (params, batch_stats); `params` has the parts `head` and, if any of it is trained,
            `backbone`.
        apply: (params, batch_stats, inputs, mask [B] bool, keys [B]) -> (logit, batch_stats), as in training. Every
            example has its own key, so that dropout does not depend on how a batch is spread over devices.
        predict: (params, batch_stats, inputs) -> logit.
        sample: (params, batch_stats, inputs, keys [B]) -> logit, as predicted but for dropout in the head.
        embed: (params, batch_stats, inputs) -> [B, W], what the last layer sees.
        loss: (params, batch_stats, inputs, label [B], mask, keys) -> (loss [B], logit, batch_stats), of a network that
            does not minimise the cross-entropy of its logit; `label` is 0 or 1 everywhere, `mask` is for statistics.
    """

    init: Callable[..., tuple[Any, Any]]
    apply: Callable[..., tuple[jax.Array, Any]]
    predict: Callable[..., jax.Array]
    sample: Callable[..., jax.Array]
    embed: Callable[..., jax.Array]
    loss: Callable[..., tuple[jax.Array, jax.Array, Any]] | None = None


def pool_features(x: jax.Array, pooling: str) -> jax.Array:
    """A last map [B, H, W, C] to features: `mean` or `max` [B, C], `flatten` [B, H·W·C]; features stay as they are."""
    if x.ndim == 2:
        return x
    assert x.ndim == 4, x.shape
    return {"mean": x.mean((1, 2)), "max": x.max((1, 2)), "flatten": x.reshape(len(x), -1)}[pooling]


def _head_logit(head: Any, params: Any, features: Any, keys: jax.Array) -> jax.Array:
    """[B, D], or a tree of such, to [B] with dropout, an example a key."""
    if not head.dropout:
        return head.apply({"params": params}, features)

    def one(feature: Any, key: jax.Array) -> jax.Array:
        batch = jax.tree.map(lambda x: x[None], feature)
        return head.apply({"params": params}, batch, train=True, rngs={"dropout": key})[0]

    return jax.vmap(one)(features, keys)


def of_head(head: Any) -> Network:
    """A head alone, a module with a rate of `dropout`, on features [B, D], or bags of them, computed before."""

    def init(key: jax.Array, inputs: jax.Array) -> tuple[Any, Any]:
        return {"head": head.init(key, inputs)["params"]}, {}

    def apply(params: Any, batch_stats: Any, inputs: jax.Array, mask: jax.Array, keys: jax.Array):
        del mask
        return _head_logit(head, params["head"], inputs, keys), batch_stats

    def predict(params: Any, batch_stats: Any, inputs: jax.Array) -> jax.Array:
        del batch_stats
        return head.apply({"params": params["head"]}, inputs)

    def sample(params: Any, batch_stats: Any, inputs: jax.Array, keys: jax.Array) -> jax.Array:
        del batch_stats
        return _head_logit(head, params["head"], inputs, keys)

    def embed(params: Any, batch_stats: Any, inputs: jax.Array) -> jax.Array:
        del batch_stats
        return head.apply({"params": params["head"]}, inputs, embed=True)

    return Network(init, apply, predict, sample, embed)


def of_backbone(
    model: nn.Module,
    head: Any,
    variables: Mapping[str, Any],
    *,
    start: str | None,
    stop: str,
    pooling: str,
    update_statistics: bool,
) -> Network:
    """A backbone's stages after `start` up to `stop`, pooled, and a head.

    Args:
        model: without classifier; `apply(..., start=, stop=, mask=)` as in `lesion.models`.
        head: features [B, D] to logit [B], a module with a rate of `dropout`.
        variables: what training of those stages begins from.
        start: the last stage that is not trained; inputs are its output. None: inputs are preprocessed pictures.
        stop: the stage that gives the last map.
        pooling: see `pool_features`.
        update_statistics: whether BatchNorm normalises by the batch and updates its running statistics, or uses those
            it came with.
    """

    def features_of(params: Any, batch_stats: Any, inputs: jax.Array, train: bool, mask: jax.Array | None):
        x, updated = model.apply(
            {"params": params["backbone"], "batch_stats": batch_stats},
            inputs,
            train=train,
            mask=mask,
            start=start,
            stop=stop,
            mutable=["batch_stats"] if train else [],
        )
        return pool_features(x, pooling).astype(jnp.float32), updated.get("batch_stats", batch_stats)

    def init(key: jax.Array, inputs: jax.Array) -> tuple[Any, Any]:
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        shape = jax.eval_shape(
            lambda x: features_of({"backbone": params}, batch_stats, x, False, None)[0], inputs
        ).shape
        return {"backbone": params, "head": head.init(key, jnp.zeros(shape))["params"]}, batch_stats

    def apply(params: Any, batch_stats: Any, inputs: jax.Array, mask: jax.Array, keys: jax.Array):
        features, batch_stats = features_of(params, batch_stats, inputs, update_statistics, mask)
        return _head_logit(head, params["head"], features, keys), batch_stats

    def predict(params: Any, batch_stats: Any, inputs: jax.Array) -> jax.Array:
        features, _ = features_of(params, batch_stats, inputs, False, None)
        return head.apply({"params": params["head"]}, features)

    def sample(params: Any, batch_stats: Any, inputs: jax.Array, keys: jax.Array) -> jax.Array:
        features, _ = features_of(params, batch_stats, inputs, False, None)
        return _head_logit(head, params["head"], features, keys)

    def embed(params: Any, batch_stats: Any, inputs: jax.Array) -> jax.Array:
        features, _ = features_of(params, batch_stats, inputs, False, None)
        return head.apply({"params": params["head"]}, features, embed=True)

    return Network(init, apply, predict, sample, embed)


def of_baseline(
    model: nn.Module,
    head: Any,
    variables: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    start: str | None,
    stop: str,
    pooling: str,
    own_loss: bool,
) -> Network:
    """A network of Table 7, its features trained with the classifier that it was published with.

    Args:
        model: its features, see `of_backbone`.
        head: its classifier, see `of_backbone`; with `own_loss` its method `loss` takes features [B, D], inputs and
            labels [B] and gives (loss [B], logit [B]).
        variables: what training of the features begins from.
        given: {module: parameters} that training of the classifier begins from, where it has such a module.
        start: see `of_backbone`.
        stop: see `of_backbone`.
        pooling: see `pool_features`.
        own_loss: whether that is minimised, and not the cross-entropy.
    """
    plain = of_backbone(model, head, variables, start=start, stop=stop, pooling=pooling, update_statistics=True)

    def init(key: jax.Array, inputs: jax.Array) -> tuple[Any, Any]:
        params, batch_stats = plain.init(key, inputs)
        return params | {"head": {name: given.get(name, fresh) for name, fresh in params["head"].items()}}, batch_stats

    def loss(params: Any, batch_stats: Any, inputs: jax.Array, label: jax.Array, mask: jax.Array, keys: jax.Array):
        del mask, keys  # there is neither BatchNorm nor dropout in a network of this kind
        x = model.apply({"params": params["backbone"]}, inputs, train=True, start=start, stop=stop)
        features = pool_features(jnp.asarray(x), pooling).astype(jnp.float32)
        each, logit = head.apply({"params": params["head"]}, features, inputs, label, method="loss")
        return each, logit, batch_stats

    return plain._replace(init=init, loss=loss if own_loss else None)
