"""Detects in pictures: python -m yolox_jax.tools.predict --weights=yolox_s PATH… [--output=DIR]

A path is an image, a video, a folder of them, a quoted pattern such as "photos/**/*.jpg", or the number of a webcam,
which runs until Ctrl-C. Writes an annotated copy of each and predictions.json, of what was done until then where it is
interrupted. What cannot be read is named at once and once more at the end, the rest goes on, and the exit code is 1.
"""

import json
import sys
from pathlib import Path

from absl import app, flags

from yolox_jax.cli.input_size import parse_size
from yolox_jax.cli.terminal import quiet_libraries, user_errors
from yolox_jax.inference.detector import Detector
from yolox_jax.tools.predict.prediction import Prediction

_WEIGHTS = flags.DEFINE_string("weights", None, "A run, a checkpoint, a .pth file, an exported file, or a name.")
_OUTPUT = flags.DEFINE_string("output", "predictions", "The folder for the annotated copies and predictions.json.")
_CONF = flags.DEFINE_float("conf", None, "The least score of an object; 0.25 if not given.", 0, 1)
_IOU = flags.DEFINE_float("iou", None, "How much objects of a class may overlap; 0.45 if not given.", 0, 1)
_SIZE = flags.DEFINE_list("size", None, "The input's height,width, or one for both; that of the training if not given.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images at a time.", lower_bound=1)
_MULTI_LABEL = flags.DEFINE_boolean("multi_label", None, "An object may have several classes.")
_TTA = flags.DEFINE_boolean("tta", None, "Look four times: mirrored, smaller and larger too.")
_MAX_FRAMES = flags.DEFINE_integer("max_frames", None, "Stop each video or webcam after so many.", lower_bound=1)


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        raise app.UsageError("name images, videos, folders, patterns or the number of a webcam")
    quiet_libraries()
    with user_errors():
        detector = Detector.from_pretrained(
            str(_WEIGHTS.value),
            size=None if _SIZE.value is None else parse_size(_SIZE.value),
            conf=_CONF.value,
            iou=_IOU.value,
            multi_label=_MULTI_LABEL.value,
            tta=_TTA.value,
            batch_size=_BATCH_SIZE.value,
        )
        output = Path(_OUTPUT.value)
        output.mkdir(parents=True, exist_ok=True)
        prediction = Prediction(detector, output, _MAX_FRAMES.value)
        try:
            prediction.run(argv[1:])
        finally:  # what was found until then, also at Ctrl-C or where a copy cannot be written
            (output / "predictions.json").write_text(json.dumps(prediction.as_json()) + "\n")
            num_objects = sum(len(entry["detections"]) for entry in prediction.entries)
            print(f"{num_objects} objects in {len(prediction.entries)} images: {output}")
        if prediction.unreadable:
            sys.exit("\n".join(["could not be read:", *map(str, prediction.unreadable)]))


if __name__ == "__main__":
    flags.mark_flag_as_required("weights")
    app.run(main)
