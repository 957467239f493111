"""What ImageDetections converts to: COCO, YOLO lines, crops, pandas and supervision, each compared by hand."""

import sys

import numpy as np
import pytest

from yolox_jax.errors import UserError
from yolox_jax.inference.detections import ImageDetections

_FOUND = ImageDetections(
    np.array([[10, 20, 30, 60], [0, 0.5, 3.25, 8]], np.float32),
    np.array([0.75, 0.5], np.float32),
    np.array([1, 0], np.int32),
    ("cat", "dog"),
)
_NOTHING = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), ("cat", "dog"))


def test_coco_has_the_label_and_xywh():
    assert _FOUND.to_coco(7) == [
        {"image_id": 7, "category_id": 1, "bbox": [10, 20, 20, 40], "score": 0.75},
        {"image_id": 7, "category_id": 0, "bbox": [0, 0.5, 3.25, 7.5], "score": 0.5},
    ]
    assert _NOTHING.to_coco("a") == []


def test_yolo_lines_are_center_and_size_as_fractions():
    lines = _FOUND.to_yolo_txt((80, 100)).splitlines()
    assert lines[0] == "1 0.200000 0.500000 0.200000 0.500000"
    assert _FOUND.to_yolo_txt((80, 100), with_scores=True).splitlines()[0] == f"{lines[0]} 0.750000"
    assert _NOTHING.to_yolo_txt((80, 100)) == ""


def test_crops_are_the_pixels_of_the_objects():
    image = np.arange(80 * 100 * 3, dtype=np.uint32).reshape(80, 100, 3)
    first, second = _FOUND.crops(image)
    np.testing.assert_array_equal(first, image[20:60, 10:30])
    np.testing.assert_array_equal(second, image[0:8, 0:4])
    thin = ImageDetections(np.array([[99.9, 79.9, 100, 80]], np.float32), *(x[:1] for x in _arrays()), ("cat", "dog"))
    assert [crop.shape for crop in thin.crops(image)] == [(1, 1, 3)]


def _arrays():
    return _FOUND.scores, _FOUND.labels


def test_a_data_frame_has_a_row_per_object():
    pytest.importorskip("pandas")
    frame = _FOUND.to_dataframe()
    assert list(frame.columns) == ["name", "label", "score", "x1", "y1", "x2", "y2"]
    assert frame.iloc[0].tolist() == ["dog", 1, 0.75, 10, 20, 30, 60]
    assert _NOTHING.to_dataframe().empty


@pytest.mark.parametrize(
    ("package", "convert"), [("pandas", ImageDetections.to_dataframe), ("supervision", ImageDetections.to_supervision)]
)
def test_a_missing_package_is_named(package, convert, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"needs the package {package} .*: pip install {package}"):
        convert(_FOUND)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of supervision itself
def test_supervision_takes_boxes_scores_labels_and_names():
    pytest.importorskip("supervision")
    found = _FOUND.to_supervision()
    np.testing.assert_array_equal(found.xyxy, _FOUND.boxes_xyxy)
    np.testing.assert_array_equal(found.confidence, _FOUND.scores)
    assert found.class_id.tolist() == [1, 0] and found["class_name"].tolist() == ["dog", "cat"]
    assert len(_NOTHING.to_supervision()) == 0
