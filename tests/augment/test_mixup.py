"""Compares mixup with the reference's MosaicDetection.mixup at the same parameters."""

import numpy as np
import pytest

from tests.material import golden
from yolox_jax.augment.geometry import fit, fit_ratio
from yolox_jax.augment.mixup import MixupParameters, mixup

_ARRAYS = golden("augment_mixup")


@pytest.mark.parametrize("case", range(3))  # smaller than the picture, larger and flipped, the same size and flipped
def test_blend_and_boxes_are_the_references(case):
    picture, image, boxes = (_ARRAYS[f"{case}/{name}"] for name in ("picture", "image", "boxes_xyxy"))
    parameters = MixupParameters(
        float(_ARRAYS[f"{case}/scale"]),
        bool(_ARRAYS[f"{case}/flip"]),
        tuple(_ARRAYS[f"{case}/offset_yx"].tolist()),
    )
    size_hw = picture.shape[:2]
    ratio = fit_ratio(image.shape[:2], size_hw)
    blend, moved = mixup(picture, fit(image, size_hw), boxes * ratio, parameters)
    np.testing.assert_allclose(moved, _ARRAYS[f"{case}/blend_boxes_xyxy"], atol=1e-3)
    # Builds of OpenCV round differently when they resize.
    assert np.abs(blend.astype(int) - _ARRAYS[f"{case}/blend"].astype(int)).max() <= 1


def test_halves_of_the_blend_are_truncated_not_rounded():
    levels = np.arange(256, dtype=np.uint8)
    picture, image = (np.repeat(grid[:, :, None], 3, 2).astype(np.uint8) for grid in np.meshgrid(levels, levels))
    blend, _ = mixup(picture, image, np.zeros((0, 4)), MixupParameters(1.0, False, (0, 0)))
    np.testing.assert_array_equal(blend, (picture.astype(int) + image) // 2)
