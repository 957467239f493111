"""Witnesses: what several checkpoints of a run, and each of them in a mirror, find in the same images.

What a network learned by heart, it finds in the view and with the weights that it learned it with. So a label that only
some witnesses confirm is less sure than one that all do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from yolox_jax.augment.geometry import PAD_VALUE, letterbox
from yolox_jax.boxes import flip_xyxy
from yolox_jax.inference import pretrained
from yolox_jax.inference.detections import ImageDetections, from_input_pixels
from yolox_jax.inference.predict import DetectConfig, make_predict
from yolox_jax.inference.pretrained import Pretrained
from yolox_jax.mesh import make_own_mesh, place, platform_of
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.weights import checkpoint
from yolox_jax.weights.load import find_weights

CONFIG = DetectConfig(conf=0.05, iou=0.6, max_detections=300, num_candidates=1000)


class _Witness(NamedTuple):
    variables: Any  # on the device
    mirrored: bool


class Witnesses:
    """Detects in batches of images; the first witness is the last checkpoint without a mirror."""

    def __init__(self, loaded: Sequence[Pretrained], size_hw: tuple[int, int], batch_size: int):
        mesh = make_own_mesh()
        self.class_names, self.size_hw, self.batch_size = loaded[0].class_names, size_hw, batch_size
        self.image_config = loaded[0].image_config
        self._program = make_predict(loaded[0].model, mesh, CONFIG)
        placed = [place(fold_batch_norm(each.model, each.variables, platform_of(mesh)), mesh) for each in loaded]
        self._all = [_Witness(variables, mirrored) for variables in placed for mirrored in (False, True)]

    def __len__(self) -> int:
        return len(self._all)

    def detect(self, images: Sequence[np.ndarray]) -> list[list[ImageDetections]]:
        """Returns what each witness finds in each BGR image; at most `batch_size` images."""
        found: list[list[ImageDetections]] = [[] for _ in images]
        views = {mirrored: self._letterboxed(images, mirrored) for mirrored in (False, True)}
        for variables, mirrored in self._all:
            canvas, ratios = views[mirrored]
            batch = jax.device_get(self._program(variables, canvas))
            for row, (image, ratio) in enumerate(zip(images, ratios, strict=True)):
                seen = from_input_pixels(batch, row, ratio, image.shape[:2], self.class_names)
                if mirrored:
                    boxes_xyxy = flip_xyxy(seen.boxes_xyxy, image.shape[1])
                    seen = ImageDetections(boxes_xyxy, seen.scores, seen.labels, self.class_names)
                found[row].append(seen)
        return found

    def _letterboxed(self, images: Sequence[np.ndarray], mirrored: bool) -> tuple[np.ndarray, list[float]]:
        canvas_BHW3 = np.full((self.batch_size, *self.size_hw, 3), PAD_VALUE, np.uint8)
        ratios = []
        for row, image in enumerate(images):
            canvas_BHW3[row], ratio = letterbox(cv2.flip(image, 1) if mirrored else image, self.size_hw)
            ratios.append(ratio)
        return canvas_BHW3, ratios


def load(weights: str, most: int, batch_size: int) -> Witnesses:
    """Loads the checkpoint that `weights` names and earlier ones of its run: at most `most` in all.

    The earlier ones are spread over the second half of its steps: in the first, EMA weights have learned little.
    """
    found = find_weights(weights).checkpoint
    names = [weights] if found is None else [str(path) for path in spread(found, most)]
    loaded = [pretrained.load(name) for name in names]
    return Witnesses(loaded, loaded[0].size_hw, batch_size)


def spread(found: Path, most: int) -> list[Path]:
    """Returns a checkpoint, and earlier ones of its folder, the latest first."""
    if not found.name.isdecimal():
        return [found]
    last = int(found.name)
    steps = sorted(step for step in checkpoint.complete_steps(found.parent) if last / 2 <= step <= last)
    places = np.unique(np.linspace(len(steps) - 1, 0, min(most, len(steps))).round().astype(int))[::-1]
    return [found.parent / str(steps[place]) for place in places.tolist()] if steps else [found]
