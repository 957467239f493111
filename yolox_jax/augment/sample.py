"""Runs on the host: makes one training sample, with all random draws from one stream."""

import dataclasses
from collections.abc import Callable

import numpy as np

from yolox_jax.augment import draws, geometry, hook, occlusion, quality, warp
from yolox_jax.augment.draws import AugmentConfig, Stream, stream_of
from yolox_jax.augment.mixup import mixup
from yolox_jax.augment.mosaic import mosaic
from yolox_jax.boxes import min_sides_xyxy
from yolox_jax.types import Example, Source

DrawPartner = Callable[[np.random.Generator], int]  # a random index into the source


@dataclasses.dataclass(frozen=True)
class TrainSample:
    """One row of each array of `types.Batch`, plus values for the log."""

    image: np.ndarray  # [H, W, 3] uint8, BGR
    boxes: np.ndarray  # [G, 4] float32, xyxy input pixels
    labels: np.ndarray  # [G] int32
    mask: np.ndarray  # [G] bool
    hsv_shift: np.ndarray | None  # [3] float32, levels or, if hsv_multiplies, factors; the device applies it
    content_hw: tuple[int, int]  # the rows and columns to shift: all but the padding, or (0, 0)
    image_ids: tuple[int | str, ...]  # the image's own id, then its partners'
    num_dropped_boxes: int  # boxes beyond the G slots


@dataclasses.dataclass(frozen=True)
class _Picture:
    """An image with its boxes, before the steps that every sample goes through."""

    image: np.ndarray  # [h, w, 3] uint8, BGR
    boxes_xyxy: np.ndarray  # [n, 4], pixels of `image`
    labels: np.ndarray  # [n] int32
    image_ids: tuple[int | str, ...]

    def only_larger(self, side: float) -> "_Picture":
        """Returns the picture with the boxes of which both sides are longer."""
        is_larger = min_sides_xyxy(self.boxes_xyxy) > side
        return dataclasses.replace(self, boxes_xyxy=self.boxes_xyxy[is_larger], labels=self.labels[is_larger])


def train_sample(
    source: Source,
    index: int,
    rng: np.random.Generator,
    *,
    size_hw: tuple[int, int],
    num_slots: int,
    augment: AugmentConfig,
    draw_partner: DrawPartner,
) -> TrainSample:
    """Makes the sample of image `index`: optional mosaic and mixup, further augmentations if they are on, flip, padding
    to `size_hw`, `num_slots` box slots.

    The source's images must be fitted to `size_hw` (FittedSource).

    As in the reference's TrainTransform, boxes with a side of at most `min_box_side` are left out. If that leaves none,
    the image is neither flipped, turned nor shifted in color, and all boxes are kept, unless crop, perspective or a
    hook is on.
    """
    if rng.random() < augment.mosaic_prob:
        picture = _mosaic_picture(source, index, rng, size_hw, augment, draw_partner)
    else:
        picture = _plain_picture(source[index], rng, augment)
    picture = _occluded(picture, source, rng, augment, draw_partner)
    if augment.view.is_on or augment.hook:  # a crop may leave nothing of a box, and a hook may take no empty ones
        picture = picture.only_larger(augment.min_box_side)
    degrading = draws.draw_quality(rng, augment.quality)
    if degrading:
        picture = dataclasses.replace(picture, image=quality.degrade(picture.image, degrading))
    if augment.hook:
        hook_rng = stream_of(rng, Stream.HOOK)
        picture = _hooked(picture, augment.hook, hook_rng, len(source.class_names), size_hw)

    image, boxes_xyxy, labels = picture.image, picture.boxes_xyxy, picture.labels
    hsv_shift = None if augment.hsv is None else draws.draw_hsv_shift(rng, augment.hsv, augment.hsv_multiplies)
    if hsv_shift is not None and degrading and degrading.gray:
        hsv_shift = quality.without_tint(hsv_shift, augment.hsv_multiplies)
    flip = rng.random() < augment.flip_prob
    vertical_flip, quarters = draws.draw_orientation(rng, augment)
    large = min_sides_xyxy(boxes_xyxy) > augment.min_box_side
    if large.any():
        if flip:
            image, boxes_xyxy = geometry.flip_horizontal(image, boxes_xyxy)
        if vertical_flip:
            image, boxes_xyxy = geometry.flip_vertical(image, boxes_xyxy)
        image, boxes_xyxy = geometry.turn(image, boxes_xyxy, quarters, size_hw)
        boxes_xyxy, labels = boxes_xyxy[large], labels[large]

    num_boxes = min(len(boxes_xyxy), num_slots)
    slots_xyxy = np.zeros((num_slots, 4), np.float32)
    slots_xyxy[:num_boxes] = boxes_xyxy[:num_boxes]
    slot_labels = np.zeros(num_slots, np.int32)
    slot_labels[:num_boxes] = labels[:num_boxes]
    return TrainSample(
        image=geometry.pad(image, size_hw),
        boxes=slots_xyxy,
        labels=slot_labels,
        mask=np.arange(num_slots) < num_boxes,
        hsv_shift=hsv_shift,
        content_hw=image.shape[:2] if large.any() else (0, 0),
        image_ids=picture.image_ids,
        num_dropped_boxes=len(boxes_xyxy) - num_boxes,
    )


def _plain_picture(example: Example, rng: np.random.Generator, augment: AugmentConfig) -> _Picture:
    """Makes a picture of one image, cropped and in perspective if drawn so."""
    image, boxes_xyxy = example.image, example.boxes_xyxy
    view = draws.draw_view(rng, image.shape[:2], augment.view)
    if view is not None:
        matrix = warp.as_affine(view)
        boxes_xyxy = warp.warp_boxes(boxes_xyxy, matrix, image.shape[:2])
        image = warp.warp_image(image, matrix)
    return _Picture(image, boxes_xyxy, example.labels, (example.image_id,))


def _mosaic_picture(
    source: Source,
    index: int,
    rng: np.random.Generator,
    size_hw: tuple[int, int],
    augment: AugmentConfig,
    draw_partner: DrawPartner,
) -> _Picture:
    """Makes a mosaic of image `index` and three partners; if it has boxes, mixup may blend in an image with boxes."""
    parameters = draws.draw_mosaic(rng, size_hw, augment)
    view = draws.draw_view(rng, size_hw, augment.view)
    parameters = dataclasses.replace(parameters, matrix=warp.compose(view, parameters.matrix))
    examples = [source[i] for i in (index, *(draw_partner(rng) for _ in range(3)))]
    image, boxes = mosaic(
        [example.image for example in examples], [example.boxes_xyxy for example in examples], size_hw, parameters
    )
    if len(boxes) and rng.random() < augment.mixup_prob:
        # This loop ends: the four images can be drawn again, and at least one of them has boxes.
        partner = draw_partner(rng)
        while not source.num_boxes(partner):
            partner = draw_partner(rng)
        example = source[partner]
        blend_parameters = draws.draw_mixup(rng, size_hw, augment)
        image, blended_boxes = mixup(image, example.image, example.boxes_xyxy, blend_parameters)
        examples.append(example)
        boxes = np.concatenate([boxes, blended_boxes])
    labels = np.concatenate([example.labels for example in examples])
    return _Picture(image, boxes, labels, tuple(example.image_id for example in examples))


def _occluded(
    picture: _Picture, source: Source, rng: np.random.Generator, augment: AugmentConfig, draw_partner: DrawPartner
) -> _Picture:
    """Pastes boxes of one partner, cuts holes, and leaves out the boxes that are hidden by them."""
    image, boxes_xyxy, labels, image_ids = picture.image, picture.boxes_xyxy, picture.labels, picture.image_ids
    config = augment.occlusion
    pastes: list[occlusion.Paste] = []
    holes: list[tuple[int, int, int, int]] = []
    if config.paste_prob and (paste_rng := stream_of(rng, Stream.PASTE)).random() < config.paste_prob:
        partner = source[draw_partner(paste_rng)]
        sizes_hw = image.shape[:2], partner.image.shape[:2]
        pastes = draws.draw_pastes(paste_rng, *sizes_hw, partner.boxes_xyxy, config, may_flip=augment.flip_prob > 0)
        if pastes:
            image, pasted_xyxy = occlusion.paste(image, partner.image, partner.boxes_xyxy, pastes)
            boxes_xyxy = np.concatenate([boxes_xyxy, pasted_xyxy])
            labels = np.concatenate([labels, partner.labels[[each.index for each in pastes]]])
            image_ids = (*image_ids, partner.image_id)
    if config.cutout_prob and (hole_rng := stream_of(rng, Stream.CUTOUT)).random() < config.cutout_prob:
        holes = draws.draw_holes(hole_rng, image.shape[:2], config)
        image = occlusion.cut_out(image, holes)
    if not pastes and not holes:
        return picture
    targets = [each.target_xyxy for each in pastes]
    is_seen = occlusion.hidden_shares(boxes_xyxy, targets, holes, image.shape[:2]) <= config.max_hidden
    return _Picture(image, boxes_xyxy[is_seen], labels[is_seen], image_ids)


def _hooked(
    picture: _Picture, name: str, rng: np.random.Generator, num_classes: int, size_hw: tuple[int, int]
) -> _Picture:
    """Applies the user's hook. If it changes the image's size, the result is resized to fit the input."""
    before_hw = picture.image.shape[:2]
    image, boxes_xyxy, labels = hook.call(name, picture.image, picture.boxes_xyxy, picture.labels, rng, num_classes)
    if image.shape[:2] != before_hw:
        image, boxes_xyxy = geometry.fit_with_boxes(image, boxes_xyxy, size_hw)
    return _Picture(image, boxes_xyxy, labels, picture.image_ids)
