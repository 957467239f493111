"""The dynamic loss scale of training in float16, in which small gradients would become zero.

The loss is multiplied by the scale before the backward pass, and the gradients are divided by it in float32. The scale
halves if a gradient overflows, and doubles after many updates without. Source: Micikevicius et al., "Mixed Precision
Training" (arXiv 1710.03740), section 3.2; the numbers are those of torch.amp.GradScaler, which the reference uses.
"""

import flax.struct
import jax
import jax.numpy as jnp

from yolox_jax.detection.losses import LossSums

_FIRST = 2.0**16
_UPDATES_TO_DOUBLE = 2000
# At 1 the gradients are those of the loss itself: one of more than 65504 means that training diverges.
_LOWEST = 1.0
# NVIDIA's Apex has this bound. A gradient of 2⁻⁴⁸ then still counts, which no weight would notice; and without a bound
# the scale of a run whose gradients vanish would overflow itself.
_HIGHEST = 2.0**24


@flax.struct.dataclass
class LossScale:
    """The scale, a power of two, and how long it has been right."""

    value: jax.Array  # [] float32
    num_updates: jax.Array  # [] int32: since it last changed

    def factor(self, sums: LossSums) -> jax.Array:
        """What to multiply the undivided loss of some images by.

        Divides by the number of their positive anchors too, so that the scale is that of a mean: it then depends
        neither on the number of images nor on that of devices, and is the reference's.
        """
        return self.value / jnp.maximum(sums.counts["num_fg"], 1)

    def is_too_high(self, loss_is_finite: jax.Array, gradients_are_finite: jax.Array) -> jax.Array:
        """Whether a lower scale may mend the step: not if the loss itself is not finite, and not at the lowest."""
        return loss_is_finite & ~gradients_are_finite & (self.value > _LOWEST)

    def after(self, is_too_high: jax.Array, updated: jax.Array) -> "LossScale":
        """The scale after a step that updated the weights, or that was skipped because the scale was too high."""
        num_updates = self.num_updates + updated.astype(jnp.int32)
        doubles = num_updates == _UPDATES_TO_DOUBLE
        value = jnp.where(is_too_high, self.value / 2, jnp.where(doubles, self.value * 2, self.value))
        num_updates = jnp.where(is_too_high | doubles, 0, num_updates)
        return LossScale(jnp.clip(value, _LOWEST, _HIGHEST), num_updates)


def create(dtype: jnp.dtype) -> LossScale | None:
    """The first scale of a run with this compute dtype; None unless that is float16, the only one of a small range."""
    if dtype != jnp.float16:
        return None
    return LossScale(jnp.asarray(_FIRST, jnp.float32), jnp.zeros((), jnp.int32))
