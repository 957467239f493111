"""Runs on the device: shifts hue, saturation and brightness with OpenCV's 8-bit HSV arithmetic."""

import jax
import jax.numpy as jnp

_HUE_LEVELS = 180.0  # OpenCV's 8-bit hue counts half degrees
_FIXED_BITS = 12  # fractional bits in OpenCV's fixed-point conversion, whose source calls them hsv_shift
CUT = 1e-3  # added before truncating, as OpenCV does: float32 may leave a whole level slightly too low


def shift_hsv(image_HW3: jax.Array, shift_3: jax.Array, multiplies: bool = False) -> jax.Array:
    """Shifts the hue, saturation and value of a BGR image [H, W, 3] in 0..255 by whole levels; returns float32 BGR.

    With `multiplies`, `shift_3` holds factors instead, as in the reference before June 2021; the products are truncated
    to whole levels.
    """
    channels = _bgr_to_hsv(image_HW3.astype(jnp.int32))
    if multiplies:
        hue, saturation, value = (jnp.floor(channel * shift_3[i] + CUT) for i, channel in enumerate(channels))
    else:
        hue, saturation, value = (channel + shift_3[i] for i, channel in enumerate(channels))
    return _hsv_to_bgr(hue % _HUE_LEVELS, jnp.clip(saturation, 0.0, 255.0), jnp.clip(value, 0.0, 255.0))


def _bgr_to_hsv(image_HW3: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Converts with OpenCV's fixed-point arithmetic: an error of one level of hue can become seven levels of color."""
    blue, green, red = (image_HW3[..., i] for i in range(3))
    value = jnp.maximum(jnp.maximum(blue, green), red)
    spread = value - jnp.minimum(jnp.minimum(blue, green), red)
    half, one = 1 << (_FIXED_BITS - 1), 1 << _FIXED_BITS
    per_value = jnp.round(255.0 * one / jnp.maximum(value, 1)).astype(jnp.int32)
    per_spread = jnp.round(_HUE_LEVELS / 6 * one / jnp.maximum(spread, 1)).astype(jnp.int32)
    saturation = (spread * per_value + half) >> _FIXED_BITS
    sixths = jnp.where(
        value == red,
        green - blue,
        jnp.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = (sixths * per_spread + half) >> _FIXED_BITS
    return hue % int(_HUE_LEVELS), saturation, value


def _hsv_to_bgr(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    def channel(offset: float) -> jax.Array:
        ramp = (hue * (6 / _HUE_LEVELS) + offset) % 6
        share = jnp.clip(jnp.minimum(ramp, 4 - ramp), 0.0, 1.0)
        return jnp.floor(value - value * (saturation / 255.0) * share + CUT)

    return jnp.stack([channel(1.0), channel(3.0), channel(5.0)], axis=-1)


def shift_content(
    image_HW3: jax.Array, shift_3: jax.Array, content_2: jax.Array, multiplies: bool = False
) -> jax.Array:
    """Applies `shift_hsv` to the first content_2 = (rows, columns) of an image; the padding beyond stays gray."""
    height, width = image_HW3.shape[:2]
    in_content_HW = (jnp.arange(height)[:, None] < content_2[0]) & (jnp.arange(width)[None, :] < content_2[1])
    return jnp.where(
        in_content_HW[:, :, None], shift_hsv(image_HW3, shift_3, multiplies), image_HW3.astype(jnp.float32)
    )
