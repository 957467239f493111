"""Draws a data set of circles, squares, triangles and stars on the fly, so that nothing needs downloading.

Picture i is a pure function of (seed, i). It is planned first, and then drawn with a second random stream, so that the
boxes are known without drawing.
"""

import dataclasses
import math
from typing import Any

import cv2
import numpy as np

from yolox_jax.boxes import xyxy_to_xywh
from yolox_jax.data.sources import coco_format
from yolox_jax.data.sources.coco_format import ListedBox, ListedImage
from yolox_jax.types import Example, Problem

CLASS_NAMES = ("circle", "square", "triangle", "star")

_PLAN, _DRAWING = 0, 1  # the two random streams of a picture
_SHORTEST_SIDE = 3 / 4  # of max_side: 96 at 128
_NEGATIVES = 0.08  # fraction of pictures without a shape, so that the detector learns to detect nothing
_MAX_SHAPES = 6
_DIAMETERS = (0.25, 0.5)  # of the circle around a shape, as fractions of the picture's short side
_MIN_VISIBLE = 0.4  # fraction of a shape's pixels; a detector cannot be expected to find one that shows less
_MAX_TILT = math.radians(20)  # from upright, to either side
_TRIES = 16  # to find a place for a shape, or a color, before giving up
_MIN_CONTRAST = 130.0  # BGR distance between a shape and the background's mean color
_MIN_DIFFERENCE = 60.0  # BGR distance between two shapes, so that overlaps are visible
_GRADIENT = 20  # levels: the largest difference of the background's corners from its mean color
_NOISE = 8.0  # levels in either direction, uniform in each channel


@dataclasses.dataclass(frozen=True)
class Shape:
    """A filled polygon. Its vertices are whole pixels, so the bounds of the vertices are exactly its box."""

    label: int
    polygon: np.ndarray  # [v, 2] int32, xy
    color: np.ndarray  # [3] float64, BGR

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """The box in pixels; x2 and y2 are one past the last pixel drawn."""
        (x1, y1), (x2, y2) = self.polygon.min(axis=0).tolist(), self.polygon.max(axis=0).tolist()
        return x1, y1, x2 + 1, y2 + 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """The content of a picture. A later shape covers the earlier ones."""

    height: int
    width: int
    background: np.ndarray  # [3] float64, BGR: the mean color
    shapes: tuple[Shape, ...]


class ShapesSource:
    """`num_images` pictures with exact boxes; their sides are 3/4 of `max_side` to `max_side` pixels."""

    class_names: tuple[str, ...] = CLASS_NAMES

    def __init__(self, num_images: int, seed: int, max_side: int = 128):
        if num_images < 1 or seed < 0 or max_side < 64:
            raise ValueError(
                f"needs num_images >= 1, seed >= 0 and max_side >= 64, got {num_images}, {seed} and {max_side}"
            )
        self.problems: list[Problem] = []
        self._num_images = num_images
        self._seed = seed
        self._max_side = max_side

    def __len__(self) -> int:
        return self._num_images

    def __getitem__(self, index: int) -> Example:
        plan = self.plan(index)
        boxes_xyxy = np.array([shape.box_xyxy for shape in plan.shapes], np.float32).reshape(-1, 4)
        return Example(draw(plan, self._rng(index, _DRAWING)), boxes_xyxy, self.labels(index), self.image_id(index))

    def image_id(self, index: int) -> int:
        return index + 1

    def num_boxes(self, index: int) -> int:
        return len(self.plan(index).shapes)

    def labels(self, index: int) -> np.ndarray:
        return np.array([shape.label for shape in self.plan(index).shapes], np.int32)

    def encoded(self, index: int) -> None:
        """Returns None: a picture has no file."""

    def plan(self, index: int) -> Plan:
        """Plans picture `index` without drawing it."""
        if not 0 <= index < self._num_images:
            raise IndexError(f"picture {index} of {self._num_images}")
        return _plan(self._rng(index, _PLAN), self._max_side)

    def ground_truth(self) -> dict[str, Any]:
        """Returns all pictures in COCO's format."""
        images, boxes = [], []
        for index in range(self._num_images):
            plan = self.plan(index)
            images.append(ListedImage(self.image_id(index), f"shapes_{index}", plan.width, plan.height))
            for shape in plan.shapes:
                xywh = xyxy_to_xywh(np.array(shape.box_xyxy)).tolist()
                boxes.append(ListedBox(index, shape.label, xywh, iscrowd=False))
        return coco_format.to_dict(CLASS_NAMES, images, boxes)

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(index, stream)))


def _plan(rng: np.random.Generator, max_side: int) -> Plan:
    height, width = rng.integers(round(_SHORTEST_SIDE * max_side), max_side, size=2, endpoint=True).tolist()
    background = rng.uniform(40, 215, size=3)
    num_shapes = 0 if rng.random() < _NEGATIVES else int(rng.integers(1, _MAX_SHAPES, endpoint=True))
    shapes: list[Shape] = []
    for _ in range(num_shapes):
        color = _pick_color(rng, background, shapes)
        label = int(rng.integers(len(CLASS_NAMES)))
        radius = rng.uniform(*_DIAMETERS) * min(height, width) / 2
        outline = _outline(label, angle=rng.uniform(-_MAX_TILT, _MAX_TILT)) * radius
        for _ in range(_TRIES):
            center = rng.uniform(radius, (width - 1 - radius, height - 1 - radius))
            shape = Shape(label, np.rint(outline + center).astype(np.int32), color)
            if _leaves_visible(shape, shapes):
                shapes.append(shape)
                break
    return Plan(height, width, background, tuple(shapes))


def _leaves_visible(shape: Shape, shapes: list[Shape]) -> bool:
    """Returns True if every earlier shape certainly keeps `_MIN_VISIBLE` of its pixels once this one is drawn too.

    The estimate is conservative: it counts the whole boxes of the shapes above, also where they overlap each other.
    """
    for position, below in enumerate(shapes):
        covered = sum(_intersection(below.box_xyxy, above.box_xyxy) for above in (*shapes[position + 1 :], shape))
        if covered > (1 - _MIN_VISIBLE) * cv2.contourArea(below.polygon):
            return False
    return True


def _intersection(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def _pick_color(rng: np.random.Generator, background: np.ndarray, shapes: list[Shape]) -> np.ndarray:
    """Draws a color, [3] BGR, that differs from the background and, if a few tries find one, from the other shapes."""
    for _ in range(_TRIES):
        color = rng.uniform(0, 255, size=3)
        is_clear = math.dist(color, background) >= _MIN_CONTRAST
        if is_clear and all(math.dist(color, shape.color) >= _MIN_DIFFERENCE for shape in shapes):
            return color
    # Each channel at the end of its range that is farther from the background, so at least 127 levels away.
    return np.where(background < 128, 255.0, 0.0)


def _outline(label: int, angle: float) -> np.ndarray:
    """Returns a class's polygon, [v, 2] float64, in the unit circle about (0, 0), tilted by `angle` radians."""
    num_vertices = {"circle": 40, "square": 4, "triangle": 3, "star": 10}[CLASS_NAMES[label]]
    first = math.pi / 4 if CLASS_NAMES[label] == "square" else -math.pi / 2  # a side, or a tip, points up
    turns = first + angle + np.arange(num_vertices) * (2 * math.pi / num_vertices)
    radii = np.ones(num_vertices)
    if CLASS_NAMES[label] == "star":
        radii[1::2] = 0.45
    return np.stack([np.cos(turns), np.sin(turns)], axis=1) * radii[:, None]


def draw(plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Draws the picture, [h, w, 3] uint8 BGR; background, clutter and noise come from `rng`."""
    corners = plan.background + rng.uniform(-_GRADIENT, _GRADIENT, size=(2, 2, 3))
    image = cv2.resize(corners.astype(np.uint8), (plan.width, plan.height), interpolation=cv2.INTER_LINEAR)
    _draw_clutter(image, rng)
    for shape in plan.shapes:
        cv2.fillPoly(image, [shape.polygon], shape.color.tolist())
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return cv2.addWeighted(image, 1.0, noise, 2 * _NOISE / 255, -_NOISE)


def _draw_clutter(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draws small unlabeled marks into the image, so that not every edge belongs to a shape."""
    height, width = image.shape[:2]
    for mark in rng.integers(4, size=rng.integers(3, 9)).tolist():
        color = rng.integers(256, size=3).tolist()
        x, y, x_end, y_end = rng.integers(0, (width, height, width, height)).tolist()
        size = min(height, width) // 10
        if mark == 0:
            cv2.line(image, (x, y), (x_end, y_end), color)
        elif mark == 1:
            cv2.circle(image, (x, y), 1 + x_end % 2, color, cv2.FILLED)
        elif mark == 2:
            cv2.ellipse(image, (x, y), (size + x_end % size, size + y_end % size), 0, x_end, x_end + 90, color)
        else:
            cv2.rectangle(image, (x, y), (x + size + x_end % size, y + size + y_end % size), color)
