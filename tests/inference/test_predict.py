"""DetectConfig: the ranges of its fields."""

import pytest

from yolox_jax.errors import UserError
from yolox_jax.inference.predict import DetectConfig


@pytest.mark.parametrize(
    ("field", "value", "advice"),
    [
        ("conf", 1.5, "give a score threshold from 0 to 1"),
        ("conf", float("nan"), "give a score threshold from 0 to 1"),
        ("iou", -0.1, "give an IoU threshold from 0 to 1"),
        ("max_detections", 0, "give 1 or more"),
        ("num_candidates", -1, "give 1 or more"),
    ],
)
def test_a_field_out_of_range_is_named(field, value, advice):
    with pytest.raises(UserError, match=f"^{field} is {value}: {advice}"):
        DetectConfig(**{field: value})


def test_the_ends_of_the_ranges_are_allowed():
    DetectConfig(conf=0, iou=0, max_detections=1, num_candidates=1)
    DetectConfig(conf=1.0, iou=1.0)
