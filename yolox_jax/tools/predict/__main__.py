"""Detects objects in images and videos: python -m yolox_jax.tools.predict --weights=yolox_s PATH… [--output=DIR]

A path is an image, a video, a folder of them, a quoted pattern such as "photos/**/*.jpg", or the number of a webcam,
which runs until Ctrl-C. Writes an annotated copy of each input, and predictions.json, also after Ctrl-C or an error:
its field is_complete is then false. --save_txt adds label files, --save_crop a picture of each object. Inputs that
cannot be read are reported and skipped; the exit code is then 1.

Several processes, started with the same paths, share the inputs (--coordinator); each writes the copies of its own, and
process 0 writes predictions.json, in which is_complete is true only if the results of all processes are there.
"""

import json
import sys
from pathlib import Path
from typing import cast

import jax
from absl import app, flags

from yolox_jax import storage
from yolox_jax.cli import processes
from yolox_jax.cli.input_size import parse_size
from yolox_jax.cli.outputs import output_folder
from yolox_jax.cli.same_weights import agreed
from yolox_jax.cli.terminal import parse_flags, quiet_libraries
from yolox_jax.data.prefetch import Shard
from yolox_jax.errors import writing
from yolox_jax.inference.detector import Detector
from yolox_jax.tools.predict.extras import Extras
from yolox_jax.tools.predict.prediction import Prediction
from yolox_jax.training import hosts

_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "A run directory, a checkpoint, a .pth or .safetensors file, an exported file, an address (hf://, https://, gs://, "
    "s3://), or a name like yolox_s.",
)
_OUTPUT = flags.DEFINE_string("output", "predictions", "The folder of the annotated copies and predictions.json.")
_CONF = flags.DEFINE_float("conf", None, "Score threshold; 0.25 if not given.", 0, 1)
_IOU = flags.DEFINE_float("iou", None, "IoU threshold of NMS; 0.45 if not given.", 0, 1)
_SIZE = flags.DEFINE_list(
    "size", None, "The input size as height,width, or one number for both; by default that of training."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images per batch.", lower_bound=1)
_MULTI_LABEL = flags.DEFINE_boolean("multi_label", None, "A box may have several classes.")
_TTA = flags.DEFINE_boolean("tta", None, "Test-time augmentation: also detect in mirrored, smaller and larger views.")
_SLICES = flags.DEFINE_string(
    "slices", None, "Also detect in tiles of each image: auto, rows x columns such as 2x3, or a tile's pixels."
)
_OVERLAP = flags.DEFINE_float("overlap", None, "The overlap of neighboring tiles; 0.2 if not given.", 0, 0.5)
_MAX_FRAMES = flags.DEFINE_integer(
    "max_frames", None, "Stop each video or webcam after this many frames.", lower_bound=1
)
_SAVE_TXT = flags.DEFINE_boolean("save_txt", False, "Also write labels/NAME.txt in YOLO's format, with scores.")
_SAVE_CROP = flags.DEFINE_boolean("save_crop", False, "Also write each object to crops/CLASS/NAME-NUMBER.jpg.")


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        raise app.UsageError("give images, videos, folders, patterns or the number of a webcam")
    quiet_libraries()
    with processes.joined(), output_folder(_OUTPUT.value) as output:
        output = cast(Path, output)
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
        detector = Detector.from_pretrained(
            agreed(str(_WEIGHTS.value)),
            size=None if _SIZE.value is None else parse_size(_SIZE.value),
            conf=_CONF.value,
            iou=_IOU.value,
            multi_label=_MULTI_LABEL.value,
            tta=_TTA.value,
            slices=_SLICES.value,
            overlap=_OVERLAP.value,
            batch_size=_BATCH_SIZE.value,
        )
        shard = Shard(jax.process_index(), jax.process_count())
        extras = Extras(output, _SAVE_TXT.value, _SAVE_CROP.value)
        prediction = Prediction(detector, output, _MAX_FRAMES.value, shard, extras)
        _write(prediction, output, is_complete=False)  # in place of an earlier one, in case this process is killed
        is_complete = False
        try:
            prediction.run(argv[1:])
            _write(prediction, output, is_complete=False)  # if another process is lost, JAX may end this one at once
            hosts.barrier("all inputs", hosts.WORK_SECONDS)  # a film may take long
            prediction.combine(hosts.gather(prediction.as_part()))
            is_complete = True
        finally:  # also after Ctrl-C, or if a copy cannot be written
            _write(prediction, output, is_complete)
            num_objects = sum(len(entry["detections"]) for entry in prediction.entries)
            print(f"{num_objects} objects in {len(prediction.entries)} images: {_OUTPUT.value}")
            if not is_complete:
                print(f"{_OUTPUT.value}/predictions.json is incomplete", file=sys.stderr)
        if prediction.unreadable:
            raise hosts.AgreedExit("\n".join(["could not be read:", *prediction.unreadable]))


def _write(prediction: Prediction, output: Path, is_complete: bool) -> None:
    if hosts.is_primary():
        content = {"is_complete": is_complete, **prediction.as_json()}
        storage.write_bytes(output / "predictions.json", f"{json.dumps(content)}\n".encode())


if __name__ == "__main__":
    flags.mark_flag_as_required("weights")
    app.run(main, flags_parser=parse_flags)
