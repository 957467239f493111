"""Exports weights to another format: python -m yolox_jax.tools.export --weights=yolox_s --format=onnx

stablehlo  images to detections, for CPU, CUDA and TPU. `Detector.from_pretrained` and tools/predict read the file; with
           JAX alone, jax.export.deserialize reads its member program.stablehlo
onnx       images to detections as an ONNX graph; with --raw the network alone, as the official exporter writes it
litert     images to boxes and scores, for LiteRT (TFLite) on phones and boards; NMS is left to the app
pth        the weights alone in the official layout, for the official TensorRT, OpenVINO and ncnn tools
"""

import logging
from pathlib import Path
from typing import cast

from absl import app, flags

from yolox_jax.cli.input_size import parse_size
from yolox_jax.cli.outputs import output_file
from yolox_jax.cli.terminal import parse_flags, quiet_libraries, user_errors
from yolox_jax.errors import UserError
from yolox_jax.inference import pretrained
from yolox_jax.inference.export.formats import FORMATS, ExportConfig
from yolox_jax.inference.pretrained import DETECTOR_CONFIG
from yolox_jax.models import yolox

_log = logging.getLogger("yolox_jax.inference")

_WEIGHTS = flags.DEFINE_string("weights", None, "A run directory, a checkpoint, a .pth file, or a name like yolox_s.")
_FORMAT = flags.DEFINE_enum("format", None, list(FORMATS), "The format to write.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "The file to write; by default yolox_<model> and the ending of the format."
)
_SIZE = flags.DEFINE_list(
    "size", None, "The input size as height,width, or one number for both; by default that of training."
)
_BATCH = flags.DEFINE_integer("batch", None, "The number of images per call; by default any number, for litert 1.", 1)
_CONF = flags.DEFINE_float("conf", DETECTOR_CONFIG.conf, "The score threshold.", 0, 1)
_IOU = flags.DEFINE_float("iou", DETECTOR_CONFIG.iou, "The IoU threshold of NMS.", 0, 1)
_MAX_DETECTIONS = flags.DEFINE_integer(
    "max_detections", DETECTOR_CONFIG.max_detections, "The most detections per image.", 1
)
_MULTI_LABEL = flags.DEFINE_boolean("multi_label", False, "stablehlo: a box may have several classes.")
_TTA = flags.DEFINE_boolean("tta", False, "stablehlo: test-time augmentation in four views: four times the work.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", yolox.DTYPES[1:], "stablehlo: the compute dtype.")
_RAW = flags.DEFINE_boolean("raw", False, "onnx: the network alone, without decoding and NMS.")
_INPUT_DTYPE = flags.DEFINE_enum("input_dtype", "uint8", ["uint8", "float32"], "litert: the type of the images.")
_DETECTION: tuple[flags.FlagHolder, ...] = (_CONF, _IOU, _MAX_DETECTIONS, _MULTI_LABEL, _TTA)


def _check_flags() -> None:
    """Raises UserError if a flag is given that the chosen format does not use."""
    unused = {
        "--format=pth": (_SIZE, _BATCH, *_DETECTION, _DTYPE, _RAW, _INPUT_DTYPE),
        "--format=onnx": (_DTYPE, _INPUT_DTYPE),
        "--format=stablehlo": (_INPUT_DTYPE,),
        "--format=litert": (*_DETECTION, _DTYPE, _RAW),
        "--raw": _DETECTION if _RAW.value else (),
    }
    for chosen in (f"--format={_FORMAT.value}", "--raw"):
        given = [f"--{flag.name}" for flag in unused.get(chosen, ()) if flag.value != flag.default]
        if given:
            raise UserError(f"{chosen} does not use {', '.join(given)}", "leave it out")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    quiet_libraries()
    with user_errors():
        _check_flags()
        ending, _ = FORMATS[str(_FORMAT.value)]
        with output_file(_OUTPUT.value or f"yolox{ending}") as output:
            _export(cast(Path, output))


def _export(output: Path) -> None:
    """Writes the file, named after the network without --output, and prints a line."""
    loaded = pretrained.load(str(_WEIGHTS.value), _DTYPE.value)
    if loaded.image_config.sixteen_bit != "full":
        _log.warning(
            "%s was trained with config.data.sixteen_bit=%s, as Detector reads images for a StableHLO file; other "
            "programs give images of 8 bits: let them convert those of 16 bits in the same way",
            *(_WEIGHTS.value, loaded.image_config.sixteen_bit),
        )
    detect = pretrained.detector_config(
        conf=_CONF.value,
        iou=_IOU.value,
        max_detections=_MAX_DETECTIONS.value,
        multi_label=_MULTI_LABEL.value,
        tta=_TTA.value,
    )
    size_hw = loaded.size_hw if _SIZE.value is None else parse_size(_SIZE.value)
    ending, write = FORMATS[str(_FORMAT.value)]
    path = output if _OUTPUT.value else output.with_name(f"yolox_{loaded.name}{ending}")
    write(path, loaded, ExportConfig(size_hw, _BATCH.value, None if _RAW.value else detect, _INPUT_DTYPE.value))
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    network = f"YOLOX-{loaded.name}" if _FORMAT.value == "pth" else loaded.describe(size_hw)
    print(f"{_OUTPUT.value or path}: {network}, {len(loaded.class_names)} classes, {size}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["weights", "format"])
    app.run(main, flags_parser=parse_flags)
