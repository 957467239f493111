"""Repeat-factor sampling: training images of rarer classes appear several times per epoch.

Source: Gupta et al., LVIS (arXiv 1908.03195), appendix B.
"""

import numpy as np

from yolox_jax.data.views.selected import SelectedSource
from yolox_jax.errors import UserError
from yolox_jax.types import Source


class RepeatedSource(SelectedSource):
    """Repeats image i r(i) = max over its classes c of max(1, √(threshold / f(c))) times.

    f(c) is the share of images with class c. The fractional part of r(i) is carried over to the next image. The
    repetitions of an image are adjacent; the same source always gives the same order.
    """

    def __init__(self, source: Source, threshold: float):
        if not 0 < threshold <= 1:
            raise UserError(
                f"config.data.repeat_threshold is {threshold}", "give a share of the images, from 0 (off) to 1"
            )
        super().__init__(source, np.repeat(np.arange(len(source)), _num_repeats(_repeat_factors(source, threshold))))


def _repeat_factors(source: Source, threshold: float) -> np.ndarray:
    """Returns r(i) of every image, [N] float64."""
    truth = source.ground_truth()
    label_of = {category["id"]: label for label, category in enumerate(truth["categories"])}
    labels_of: dict[int | str, set[int]] = {}
    for annotation in truth["annotations"]:
        if not annotation.get("iscrowd"):
            labels_of.setdefault(annotation["image_id"], set()).add(label_of[annotation["category_id"]])
    num_images = np.zeros(len(source.class_names))
    for labels in labels_of.values():
        num_images[list(labels)] += 1
    of_class = np.sqrt(np.maximum(1, threshold * len(source) / np.maximum(num_images, 1)))
    of_image = [of_class[list(labels_of.get(source.image_id(i), ()))].max(initial=1) for i in range(len(source))]
    return np.array(of_image)


def _num_repeats(factors: np.ndarray) -> np.ndarray:
    """Rounds the factors to integers so that each partial sum is the rounded partial sum of the factors."""
    return np.diff(np.floor(np.cumsum(factors) + 0.5), prepend=0).astype(int)
