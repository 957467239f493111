"""Weights for use elsewhere: python -m yolox_jax.tools.export --weights=yolox_s --format=stablehlo|onnx|pth

stablehlo  images in, detections out, for CPU, CUDA and TPU: `Detector.from_pretrained` and tools/predict read it, and so
           does any JAX, since its member program.stablehlo is what jax.export.deserialize takes
onnx       the same as an ONNX graph; with --raw without decoding and NMS, as the official exporter writes it
pth        the weights alone in the official layout, for the official TensorRT, OpenVINO and ncnn tools
"""

from pathlib import Path

from absl import app, flags

from yolox_jax.cli.input_size import parse_size
from yolox_jax.cli.terminal import quiet_libraries, user_errors
from yolox_jax.inference import pretrained
from yolox_jax.inference.export.formats import FORMATS, ExportConfig
from yolox_jax.inference.pretrained import DETECTOR_CONFIG

_WEIGHTS = flags.DEFINE_string("weights", None, "A run, a checkpoint, a .pth file, or a name like yolox_s.")
_FORMAT = flags.DEFINE_enum("format", None, list(FORMATS), "What to write.")
_OUTPUT = flags.DEFINE_string("output", None, "The file; yolox_<model> with the format's ending if not given.")
_SIZE = flags.DEFINE_list("size", None, "The input's height,width, or one for both; that of the training if not given.")
_BATCH = flags.DEFINE_integer("batch", None, "Images at a time; any number if not given.", 1)
_CONF = flags.DEFINE_float("conf", DETECTOR_CONFIG.conf, "The least score of an object.", 0, 1)
_IOU = flags.DEFINE_float("iou", DETECTOR_CONFIG.iou, "How much objects of a class may overlap.", 0, 1)
_MAX_DETECTIONS = flags.DEFINE_integer("max_detections", DETECTOR_CONFIG.max_detections, "Slots an image.", 1)
_MULTI_LABEL = flags.DEFINE_boolean("multi_label", False, "stablehlo: an object may have several classes.")
_TTA = flags.DEFINE_boolean("tta", False, "stablehlo: look four times, mirrored, smaller and larger too.")
_RAW = flags.DEFINE_boolean("raw", False, "onnx: the network alone.")
_DETECTION: tuple[flags.FlagHolder, ...] = (_CONF, _IOU, _MAX_DETECTIONS, _MULTI_LABEL, _TTA)


def _check_flags() -> None:
    """A ValueError where a flag is given that would change nothing."""
    unused = {"--format=pth": (_SIZE, _BATCH, *_DETECTION, _RAW), "--raw": _DETECTION}
    chosen = "--format=pth" if _FORMAT.value == "pth" else "--raw" if _RAW.value else ""
    given = [f"--{flag.name}" for flag in unused.get(chosen, ()) if flag.value != flag.default]
    if given:
        raise ValueError(f"{chosen} has no use for {', '.join(given)}: leave that out")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    quiet_libraries()
    with user_errors():
        _check_flags()
        loaded = pretrained.load(str(_WEIGHTS.value), "float32")
        detect = pretrained.detector_config(
            conf=_CONF.value,
            iou=_IOU.value,
            max_detections=_MAX_DETECTIONS.value,
            multi_label=_MULTI_LABEL.value,
            tta=_TTA.value,
        )
        size_hw = loaded.size_hw if _SIZE.value is None else parse_size(_SIZE.value)
        ending, write = FORMATS[str(_FORMAT.value)]
        path = Path(_OUTPUT.value or f"yolox_{loaded.name}{ending}")
        write(path, loaded, ExportConfig(size_hw, _BATCH.value, None if _RAW.value else detect))
        print(f"{path}: YOLOX-{loaded.name}, {len(loaded.class_names)} classes, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    flags.mark_flags_as_required(["weights", "format"])
    app.run(main)
