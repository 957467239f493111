"""The doctor's checks of boxes against naive loops."""

import numpy as np

from yolox_jax.tools.doctor import box_checks
from yolox_jax.tools.doctor.annotations import SplitAnnotations


def test_duplicate_boxes_are_those_that_a_naive_loop_finds():
    rng = np.random.default_rng(5)
    xywh = rng.integers(1, 6, (200, 4)).astype(np.float64)
    images = np.sort(rng.integers(0, 9, 200))
    split = SplitAnnotations(
        *("train", ("cat",), tuple(range(9)), tuple(map(str, range(9)))),
        *(np.full((9, 2), 32.0), images, np.zeros(200, np.int64), xywh),
    )
    found = [f for f in box_checks.check_boxes(split, "voc", (32, 32), 200) if f.code == "duplicate-box"]
    pairs = [
        int(images[i]) for i in range(200) for j in range(i) if images[i] == images[j] and (xywh[i] == xywh[j]).all()
    ]  # with coordinates this small, every other pair overlaps far less
    assert sorted(f.image for f in found) == sorted(pairs) != []
