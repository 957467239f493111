"""A sheet of the images with the most mistakes, ground truth and detections on them."""

import numpy as np

from yolox_jax.evaluation.diagnosis import Diagnosis
from yolox_jax.evaluation.image_boxes import ImageBoxes
from yolox_jax.evaluation.mistakes import Mistakes
from yolox_jax.types import Source
from yolox_jax.visualize import drawing, sheets

_NUM_IMAGES, _COLUMNS, _CELL = 12, 4, 480
_RIGHT, _MISSED, _WRONG = (60, 180, 60), (0, 130, 255), (40, 40, 220)  # BGR: green, orange, red


def worst_images(diagnosis: Diagnosis, source: Source) -> np.ndarray | None:
    """At the best threshold of the score; None where nothing is missed or wrong."""
    index_of = {source.image_id(index): index for index in range(len(source))}
    pictures = []
    for image, mistakes in diagnosis.worst(_NUM_IMAGES):
        pixels, scale = sheets.fit(source[index_of[image.image_id]].image, _CELL - sheets.TITLE_HEIGHT)
        drawn = _draw(pixels, scale, image, mistakes, diagnosis.class_names)
        title = f"{image.image_id}: {mistakes.missed_G.sum()} missed, {mistakes.wrong_D.sum()} found wrongly"
        pictures.append(sheets.titled(drawn, title, _CELL))
    if not pictures:
        return None
    legend = (
        f"green found, orange missed, red found wrongly; scores of at least {diagnosis.best.threshold:.3f}, IoU 0.5"
    )
    sheet = sheets.sheet(pictures, _COLUMNS, _CELL)
    return sheets.titled(sheet, legend, sheet.shape[1])


def _draw(
    pixels: np.ndarray, scale: float, image: ImageBoxes, mistakes: Mistakes, class_names: tuple[str, ...]
) -> np.ndarray:
    """What is right first, so that mistakes lie above it."""
    right, missed, wrong = (np.flatnonzero(mask) for mask in (mistakes.right_D, mistakes.missed_G, mistakes.wrong_D))
    boxes_xyxy = np.concatenate([image.found_xyxy_D4[right], image.gt_xyxy_G4[missed], image.found_xyxy_D4[wrong]])
    captions = [""] * len(right) + [class_names[label] for label in image.gt_label_G[missed]]
    captions += [f"{class_names[image.found_label_D[each]]} {image.score_D[each]:.2f}" for each in wrong]
    colours = [_RIGHT] * len(right) + [_MISSED] * len(missed) + [_WRONG] * len(wrong)
    return drawing.draw_coloured(pixels, boxes_xyxy * scale, colours, captions)
