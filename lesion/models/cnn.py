"""The small CNNs of Table 7: two in the place of [9], one in that of [10]. What is a guess, `baselines` says."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from lesion.models.layers import activation, max_pool
from lesion.models.stages import Backbone, Stage


class Block(NamedTuple):
    """A convolution, a maximum and an activation.

    Attributes:
        features: output channels.
        kernel_size: side of the kernel.
        stride: of the convolution.
        padding: zeros on either side.
        pool: (side, stride) of the maximum's window; None leaves it out.
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
    """Blocks of convolution, maximum and activation, without a classifier; no BatchNorm.

    Attributes:
        blocks: in order.
        kind: of the activation, see `layers.activation`.
    """

    blocks: Sequence[Block]
    kind: str

    classifier = None

    def stages(self, train: bool, mask: jax.Array | None = None) -> list[Stage]:
        """Returns `conv1`, `pool1`, `relu1` (or `leaky1`, `prelu1`), ..."""

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
