"""The images of a batch sheet have the colors that the device will make."""

import numpy as np
import pytest

from tests.material import golden
from yolox_jax.augment.colour import shift_content
from yolox_jax.data.train_loader import LoadedBatch
from yolox_jax.types import Batch
from yolox_jax.visualize.batch_sheet import first_shifted


@pytest.mark.parametrize(("shift", "multiplies"), [((3, -20, 25), False), ((1.01, 1.4, 0.8), True)])
def test_colors_are_shifted_as_on_the_device_within_two_levels(shift, multiplies):
    image = golden("augment_device")["hsv/0/in_bgr"]
    height, width = image.shape[:2]
    contents = np.array([[height, width], [height // 2, width // 3], [0, 0]], np.int32)
    batch = Batch(
        images=np.stack([image] * 3),
        gt_boxes=np.zeros((3, 1, 4), np.float32),
        gt_labels=np.zeros((3, 1), np.int32),
        gt_mask=np.zeros((3, 1), bool),
        hsv_shift=np.array([shift] * 3, np.float32),
        content_hw=contents,
    )
    shown = first_shifted(LoadedBatch(batch, ((1,), (2,), (3,)), 0), 3, multiplies)
    assert shown.hsv_shift is None and shown.content_hw is None
    for content_hw, drawn in zip(contents, shown.images, strict=True):
        expected = np.asarray(shift_content(image, np.array(shift, np.float32), content_hw, multiplies))
        assert np.abs(drawn - expected).max() <= 2
    np.testing.assert_array_equal(shown.images[2], image)
