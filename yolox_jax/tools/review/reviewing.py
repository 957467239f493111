"""Reviews the labels of a source: asks the witnesses about every image, and ranks what they doubt."""

from typing import Any

from yolox_jax.cli.progress import print_progress
from yolox_jax.evaluation.image_boxes import ImageBoxes, by_image
from yolox_jax.tools.review import labeling, suspicions
from yolox_jax.tools.review.labels import Labels, index_of
from yolox_jax.tools.review.witnesses import Witnesses
from yolox_jax.types import Source


def review(source: Source, labels: Labels, seen_by: Witnesses, most: int) -> list[dict[str, Any]]:
    """Returns up to `most` suspicions of a source, the most doubtful first, as they are in review.json."""
    truth = {image.image_id: image for image in by_image(labels.truth, [])}
    num_classes, evidence = len(source.class_names), []
    indices = list(index_of(source).values())
    for start in range(0, len(indices), seen_by.batch_size):
        examples = [source[index] for index in indices[start : start + seen_by.batch_size]]
        for example, found in zip(examples, seen_by.detect([each.image for each in examples]), strict=True):
            boxes = [_with_labels(truth[example.image_id], labeling.as_boxes(example.image_id, each)) for each in found]
            evidence.append(suspicions.gather(truth[example.image_id], boxes, num_classes))
        print_progress(start + len(examples), len(indices), "reviewed")
    return [labels.record(each) for each in suspicions.suspect(evidence, num_classes)[:most]]


def _with_labels(truth: ImageBoxes, found: ImageBoxes) -> ImageBoxes:
    predicted = found.pred_xyxy_D4, found.pred_label_D, found.score_D
    return ImageBoxes(truth.image_id, truth.gt_xyxy_G4, truth.gt_label_G, truth.crowd_G, *predicted)
