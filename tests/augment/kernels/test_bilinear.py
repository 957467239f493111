"""Bilinear resizing by gathers against torch's definition, its own arrays, and the form of a CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import golden
from yolox_jax.augment.kernels import bilinear

_PIXEL = 3e-5 * 255  # how far two float32 forms may be apart
_ARRAYS = golden("augment_device")


def _by_loop(image_HW3: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """torch's upsample_bilinear2d with align_corners=False, pixel by pixel in float64."""
    height, width, channels = image_HW3.shape
    resized = np.zeros((*size_hw, channels))
    for i in range(size_hw[0]):
        y = max((i + 0.5) * height / size_hw[0] - 0.5, 0)
        top, bottom = int(y), min(int(y) + 1, height - 1)
        for j in range(size_hw[1]):
            x = max((j + 0.5) * width / size_hw[1] - 0.5, 0)
            left, right = int(x), min(int(x) + 1, width - 1)
            upper = (1 - x + left) * image_HW3[top, left] + (x - left) * image_HW3[top, right]
            lower = (1 - x + left) * image_HW3[bottom, left] + (x - left) * image_HW3[bottom, right]
            resized[i, j] = (1 - y + top) * upper + (y - top) * lower
    return resized


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("size_hw", [(1, 1), (5, 23), (7, 9), (12, 16), (21, 18), (40, 33)])
def test_both_forms_are_torchs_bilinear_interpolation(size_hw):
    images = _noise(12, 16)
    expected = [_by_loop(image.astype(np.float64), size_hw) for image in images]
    for form in (bilinear.by_gathers, bilinear.bilinear_plain):
        np.testing.assert_allclose(form(jnp.asarray(images), size_hw), expected, rtol=0, atol=_PIXEL)


@pytest.mark.parametrize("size_hw", [(64, 96), (128, 160)])
def test_the_gathers_give_the_pixels_that_torch_gave(size_hw):
    resized = bilinear.by_gathers(jnp.asarray(_ARRAYS["resize/in"])[None], size_hw)
    np.testing.assert_allclose(resized[0], _ARRAYS[f"resize/{size_hw[0]}x{size_hw[1]}"], rtol=0, atol=_PIXEL)


@pytest.mark.parametrize("side", [320, 608, 800])
def test_both_forms_agree_on_the_sizes_of_a_run(side):
    images = jnp.asarray(_noise(416, 640)[:1])
    size_hw = (side * 416 // 640, side)
    gathered, plain = (
        jax.jit(functools.partial(form, size_hw=size_hw))(images)
        for form in (bilinear.by_gathers, bilinear.bilinear_plain)
    )
    np.testing.assert_allclose(gathered, plain, rtol=0, atol=_PIXEL)


@pytest.mark.parametrize(("platform", "products"), [("cpu", 2), ("tpu", 2), ("cuda", 0), ("rocm", 0)])
def test_only_a_gpu_gathers(platform, products):
    resize = jax.jit(functools.partial(bilinear.bilinear, size_hw=(64, 96)))
    text = resize.trace(jnp.asarray(_noise(32, 32))).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.dot_general") == products
    assert text.count('"stablehlo.gather"') == (0 if products else 4)
