"""The small CNNs of Table 7: two in place of [9], one in place of [10]. `baselines` lists what is guessed in them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from lesion.models.layers import activation, max_pool
from lesion.models.stages import Backbone, Stage


class Block(NamedTuple):
    """A convolution, a max pool and an activation.

    Attributes:
        features: output channels.
        kernel_size: side of the kernel.
        stride: stride of the convolution.
        padding: rows and columns of zeros on each side.
        pool: (window side, stride) of the max pool; None leaves it out.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    pool: tuple[int, int] | None = None


HNCNN = (Block(8, 3, pool=(3, 1)), Block(16, 3, 2, pool=(3, 2)), Block(32, 4, 3, pool=(4, 3)))
DIAMANT = (Block(32, 5, pool=(4, 4)), Block(64, 3, pool=(4, 4)), Block(128, 3, pool=(4, 4)))
KIRYU = tuple(Block(f, 3, 1, 1, pool) for f in (32, 64, 128) for pool in (None, (2, 2)))


class SmallCNN(Backbone):
    """A chain of `Block`s, without a classifier; no BatchNorm.

    Attributes:
        blocks: the blocks, in order.
        kind: kind of the activations, see `layers.activation`.
    """

    blocks: Sequence[Block]
    kind: str

    classifier = None

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Returns the stages `conv1`, `pool1`, `relu1` (or `leaky1`, `prelu1`), `conv2`, ..."""

        def pool(i: int, size: int, stride: int) -> Stage:
            return f"pool{i}", lambda x: max_pool(x, size, stride, impl=self.impl)

        stages: list[Stage] = []
        for i, block in enumerate(self.blocks, 1):
            stages.append(self.conv_stage(f"conv{i}", *block[:4]))
            if block.pool:
                stages.append(pool(i, *block.pool))
            name = f"{self.kind}{i}"
            stages.append((name, activation(self.kind, name)))
        return stages
