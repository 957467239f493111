"""One training sample: which image stands at a position, its random stream, and the image made ready with its boxes."""

import dataclasses
import functools

import numpy as np

from yolox_jax.data import geometry
from yolox_jax.data.example import Source

_MIN_SIDE = 1.0  # input pixels: a box must be larger to be learnt (the reference's TrainTransform)
_SHUFFLE, _SAMPLE = 0, 1  # the two families of random streams under a seed


@dataclasses.dataclass(frozen=True)
class TrainSample:
    """One image of a batch. A row of each of `types.Batch`'s arrays, and what the log wants to know."""

    image: np.ndarray  # [H, W, 3] uint8, BGR
    boxes: np.ndarray  # [G, 4] float32, xyxy input pixels
    labels: np.ndarray  # [G] int32
    mask: np.ndarray  # [G] bool
    image_id: int | str
    num_dropped_boxes: int


def train_sample(
    source: Source,
    index: int,
    rng: np.random.Generator,
    *,
    size_hw: tuple[int, int],
    num_slots: int,
    flip_prob: float,
) -> TrainSample:
    """Image `index`, flipped by chance and letterboxed, its boxes in `num_slots` slots. Colour changes on the device.

    As in the reference, an image without boxes is not flipped, boxes of a pixel or less are left out, and where none is
    larger the image stays as it was and keeps them all.
    """
    example = source[index]
    image, boxes_xyxy, labels = example.image, example.boxes_xyxy, example.labels
    flip = rng.random() < flip_prob
    ratio = geometry.fit_ratio(image.shape[:2], size_hw)
    large = geometry.min_sides(boxes_xyxy) * ratio > _MIN_SIDE
    if large.any():
        if flip:
            image, boxes_xyxy = geometry.flip_horizontal(image, boxes_xyxy)
        boxes_xyxy, labels = boxes_xyxy[large], labels[large]
    image, _ = geometry.letterbox(image, size_hw)

    num_boxes = min(len(boxes_xyxy), num_slots)
    slots_xyxy = np.zeros((num_slots, 4), np.float32)
    slots_xyxy[:num_boxes] = boxes_xyxy[:num_boxes] * ratio
    slot_labels = np.zeros(num_slots, np.int32)
    slot_labels[:num_boxes] = labels[:num_boxes]
    mask = np.arange(num_slots) < num_boxes
    return TrainSample(image, slots_xyxy, slot_labels, mask, example.image_id, len(boxes_xyxy) - num_boxes)


def index_at(position: int, num_images: int, seed: int) -> int:
    """The image at a position of the endless shuffled sequence: each epoch is all images in an order of its own."""
    epoch, place = divmod(position, num_images)
    return int(_permutation(seed, epoch, num_images)[place])


def sample_rng(position: int, seed: int) -> np.random.Generator:
    """The random stream of the sample at a position, and of nothing else."""
    return _stream(seed, _SAMPLE, position)


# Threads read across one border between epochs at a time, if that. The cache is safe to call from all of them, and a
# permutation dropped too early is only made again.
@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_images: int) -> np.ndarray:
    return _stream(seed, _SHUFFLE, epoch).permutation(num_images)


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
