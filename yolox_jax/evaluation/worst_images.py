"""Draws the images with the most mistakes on one sheet."""

import numpy as np

from yolox_jax.evaluation.diagnosis import Diagnosis
from yolox_jax.evaluation.image_boxes import ImageBoxes
from yolox_jax.evaluation.mistakes import Mistakes
from yolox_jax.types import Source
from yolox_jax.visualize import drawing, sheets

_NUM_IMAGES, _COLUMNS, _CELL = 12, 4, 480
_CORRECT, _MISSED, _WRONG = (60, 180, 60), (0, 130, 255), (40, 40, 220)  # BGR: green, orange, red


def worst_images(diagnosis: Diagnosis, source: Source) -> np.ndarray | None:
    """Draws the images with the most mistakes at the best score threshold; returns None if there are no mistakes."""
    index_of = {source.image_id(index): index for index in range(len(source))}
    pictures = []
    for image, mistakes in diagnosis.worst(_NUM_IMAGES):
        pixels, scale = sheets.fit(source[index_of[image.image_id]].image, _CELL - sheets.TITLE_HEIGHT)
        drawn = _draw(pixels, scale, image, mistakes, diagnosis.class_names)
        title = f"image {image.image_id}: {mistakes.missed_G.sum()} missed, {mistakes.false_positive_D.sum()} false"
        pictures.append(sheets.titled(drawn, title, _CELL))
    if not pictures:
        return None
    legend = (
        f"Green: correct, orange: missed, red: false detection; score threshold {diagnosis.best.threshold:.3f}, IoU 0.5"
    )
    sheet = sheets.sheet(pictures, _COLUMNS, _CELL)
    return sheets.titled(sheet, legend, sheet.shape[1])


def _draw(
    pixels: np.ndarray, scale: float, image: ImageBoxes, mistakes: Mistakes, class_names: tuple[str, ...]
) -> np.ndarray:
    """Draws correct detections first, so that the mistakes lie on top."""
    masks = mistakes.true_positive_D, mistakes.missed_G, mistakes.false_positive_D
    correct, missed, wrong = (np.flatnonzero(mask) for mask in masks)
    boxes_xyxy = np.concatenate([image.pred_xyxy_D4[correct], image.gt_xyxy_G4[missed], image.pred_xyxy_D4[wrong]])
    captions = [""] * len(correct) + [class_names[label] for label in image.gt_label_G[missed]]
    captions += [f"{class_names[image.pred_label_D[i]]} {image.score_D[i]:.2f}" for i in wrong]
    colours = [_CORRECT] * len(correct) + [_MISSED] * len(missed) + [_WRONG] * len(wrong)
    return drawing.draw_coloured(pixels, boxes_xyxy * scale, colours, captions)
