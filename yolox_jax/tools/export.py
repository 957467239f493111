"""Exports weights to another format: python -m yolox_jax.tools.export --weights=yolox_s --format=onnx

stablehlo  images to detections, for CPU, CUDA and TPU. `Detector.from_pretrained` and tools/predict read the file; with
           JAX alone, jax.export.deserialize reads its member program.stablehlo
onnx       images to detections as an ONNX graph; with --raw the network alone, as the official exporter writes it
litert     images to boxes and scores, for LiteRT (TFLite) on phones and boards; NMS is left to the app
web        a folder with a page that detects in the browser, for any web server: python -m http.server shows it
pth        the weights alone in the official layout, for the official TensorRT, OpenVINO and ncnn tools
safetensors  the same, with class names and input size in the file

ONNX, StableHLO and LiteRT files, and the model of a page, carry a certificate: test images and what the weights detect
in them. --verify=FILE, or the folder of a page, runs it with its own runtime on them, prints the largest differences,
and exits with 1 if they exceed the bound. An export does so too, except of StableHLO, before anything is written.
--int8 --calibrate=DIR quantizes an ONNX or LiteRT file. With --evaluate --config=CONFIG its AP and that of the float32
file are computed on the validation images of a data set, and nothing is written if INT8 loses more than --max_drop.
--card=README.md writes a model card beside weights, from the run's results.json.
"""

import dataclasses
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from yolox_jax import storage
from yolox_jax.augment.geometry import letterbox
from yolox_jax.cli.input_size import parse_size
from yolox_jax.cli.outputs import output_file, output_folder
from yolox_jax.cli.progress import print_progress
from yolox_jax.cli.terminal import parse_flags, quiet_libraries, user_errors
from yolox_jax.data.sources.class_names import difference
from yolox_jax.errors import UserError
from yolox_jax.inference import pretrained
from yolox_jax.inference.export import certificate, model_card, runtimes, web_page
from yolox_jax.inference.export.certificate import Certificate
from yolox_jax.inference.export.formats import FORMATS, ExportConfig, check_int8_packages
from yolox_jax.inference.export.int8 import MOST_IMAGES, make_plan
from yolox_jax.inference.export.official_network import folded_tensors
from yolox_jax.inference.predict import DetectConfig, of_one_image
from yolox_jax.inference.pretrained import DETECTOR_CONFIG, Pretrained
from yolox_jax.models import yolox
from yolox_jax.tools.predict import media
from yolox_jax.weights import checkpoint
from yolox_jax.weights.load import WHAT_WEIGHTS_ARE, find_weights

if TYPE_CHECKING:
    from yolox_jax.evaluation.exported import Evaluation

_log = logging.getLogger("yolox_jax.inference")

_WEIGHTS = flags.DEFINE_string("weights", None, WHAT_WEIGHTS_ARE)
_FORMAT = flags.DEFINE_enum("format", None, list(FORMATS), "The format to write.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "The file to write, for web the folder; by default yolox_<model> and the ending of the format."
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
_SLICES = flags.DEFINE_string("slices", "", "stablehlo: also detect in tiles: auto, rows x columns, or pixels.")
_OVERLAP = flags.DEFINE_float("overlap", DETECTOR_CONFIG.overlap, "The overlap of neighboring tiles.", 0, 0.5)
_DTYPE = flags.DEFINE_enum("dtype", "float32", yolox.DTYPES[1:], "stablehlo: the compute dtype.")
_RAW = flags.DEFINE_boolean("raw", False, "onnx: the network alone, without decoding and NMS.")
_INPUT_DTYPE = flags.DEFINE_enum("input_dtype", "uint8", ["uint8", "float32"], "litert: the type of the images.")
_CERTIFICATE = flags.DEFINE_boolean("certificate", True, "Put test images and their detections into the file.")
_IMAGES = flags.DEFINE_list(
    "images", None, "Your own test images: files, folders or quoted patterns. Three of them go into the file."
)
_CARD = flags.DEFINE_string("card", None, "safetensors, pth: also write a model card (Markdown) to this path.")
_INT8 = flags.DEFINE_boolean("int8", False, "onnx, litert: quantize the network to INT8.")
_CALIBRATE = flags.DEFINE_list(
    "calibrate", None, "--int8: images like those that the network will see: files, folders or quoted patterns."
)
_EVALUATE = flags.DEFINE_boolean("evaluate", False, "--int8: compute AP of float32 and INT8 on the data of --config.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "--evaluate: the config of the data set.", lock_config=True)
_MAX_DROP = flags.DEFINE_float("max_drop", 0.02, "--evaluate: write nothing if INT8 loses more AP.", 0, 1)
_VERIFY = flags.DEFINE_string("verify", None, "Compare this exported file with its certificate, and write nothing.")
_BOX_BOUND = flags.DEFINE_float("box_bound", None, "--verify: the bound of boxes, in place of the file's.", 0)
_SCORE_BOUND = flags.DEFINE_float("score_bound", None, "--verify: the bound of scores, in place of the file's.", 0)
_DETECTION: tuple[flags.FlagHolder, ...] = (_CONF, _IOU, _MAX_DETECTIONS, _MULTI_LABEL, _TTA, _SLICES, _OVERLAP)
_CERTIFIED = (_CERTIFICATE, _IMAGES)
_NETWORK = (_SIZE, _BATCH, *_DETECTION, _DTYPE, _RAW, _INPUT_DTYPE)
_QUANTIZING = (_CALIBRATE, _EVALUATE)
_EVALUATING: tuple[flags.FlagHolder, ...] = (_CONFIG, _MAX_DROP)
_WRITING = (_WEIGHTS, _FORMAT, _OUTPUT, *_NETWORK, *_CERTIFIED, _CARD, _INT8, *_QUANTIZING, *_EVALUATING)
_CERTIFIED_FORMATS = ("onnx", "stablehlo", "litert", "web")
_WEIGHTS_ALONE = ("pth", "safetensors")


def _check_flags() -> None:
    """Raises UserError if a flag is missing, or one is given that the chosen format does not use."""
    if _VERIFY.value is None and None in (_WEIGHTS.value, _FORMAT.value):
        raise UserError("--weights or --format is not given", "give both, or --verify=FILE for a file that is exported")
    unused: dict[str, tuple[flags.FlagHolder, ...]] = {
        "--format=pth": (*_NETWORK, *_CERTIFIED, _INT8),
        "--format=safetensors": (*_NETWORK, *_CERTIFIED, _INT8),
        "--format=onnx": (_MULTI_LABEL, _TTA, _SLICES, _OVERLAP, _DTYPE, _INPUT_DTYPE, _CARD),
        "--format=web": (_BATCH, _MULTI_LABEL, _TTA, _SLICES, _OVERLAP, _DTYPE, _RAW, _INPUT_DTYPE, _CARD, _INT8),
        "--format=stablehlo": (_INPUT_DTYPE, _CARD, _INT8),
        "--format=litert": (*_DETECTION, _DTYPE, _RAW, _CARD),
        "--raw": _DETECTION if _RAW.value else (),
        "without --int8, export": () if _INT8.value else _QUANTIZING,
        "without --evaluate, export": () if _EVALUATE.value else _EVALUATING,
        "--nocertificate": () if _CERTIFICATE.value else (_IMAGES,),
        "--verify": () if _VERIFY.value is None else _WRITING,
        "without --verify, export": () if _VERIFY.value else (_BOX_BOUND, _SCORE_BOUND),
        "--slices": (_BATCH,) if _SLICES.value else (),  # all tiles of an image are the batch
        "without --slices, export": () if _SLICES.value else (_OVERLAP,),
    }
    for chosen, flags_not_used in unused.items():
        if chosen.startswith("--format") and chosen != f"--format={_FORMAT.value}":
            continue
        given = [f"--{flag.name}" for flag in flags_not_used if flag.value != flag.default]
        if given:
            raise UserError(f"{chosen} does not use {', '.join(given)}", "leave it out")
    if _INT8.value and not _CALIBRATE.value:
        raise UserError("--int8 was given without --calibrate", "name images like those that the network will see")
    if _EVALUATE.value and _CONFIG.value is None:
        raise UserError("--evaluate was given without --config", "give the config of a data set with boxes")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    quiet_libraries()
    with user_errors():
        _check_flags()
        if _VERIFY.value is not None:
            return _verify(_VERIFY.value)
        ending, _ = FORMATS[str(_FORMAT.value)]
        opened = output_folder if _FORMAT.value == "web" else output_file
        with opened(_OUTPUT.value or f"yolox{ending}") as output, output_file(_CARD.value) as card:
            _export(cast(Path, output), card)


def _export(output: Path, card: Path | None) -> None:
    """Writes the file, named after the network without --output, and prints a line."""
    if _INT8.value:
        check_int8_packages(str(_FORMAT.value))
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
        slices=_SLICES.value,
        overlap=_OVERLAP.value,
    )
    size_hw = loaded.size_hw if _SIZE.value is None else parse_size(_SIZE.value)
    ending, write = FORMATS[str(_FORMAT.value)]
    path = output if _OUTPUT.value else output.with_name(f"yolox_{loaded.name}{ending}")
    name = str(_OUTPUT.value or path)
    if _FORMAT.value == "web":
        web_page.prepare(storage.resolve(_OUTPUT.value) if _OUTPUT.value else path)  # a bucket's, not its local copy
        detect = dataclasses.replace(detect, conf=min(detect.conf, web_page.LEAST_CONF))
    is_weights_alone = _FORMAT.value in _WEIGHTS_ALONE
    is_certified = _CERTIFICATE.value and _FORMAT.value in _CERTIFIED_FORMATS
    certified = _certify(loaded, size_hw, detect) if is_certified else None
    raw_or_not = None if _RAW.value else detect
    config = ExportConfig(size_hw, _BATCH.value, raw_or_not, _INPUT_DTYPE.value, certified, _CONF.value)
    with tempfile.TemporaryDirectory(prefix="yolox_jax_") as folder:
        if _INT8.value:
            written = _write_int8(Path(folder), loaded, config, name)
        else:
            written = Path(folder) / f"exported{ending}"
            write(written, loaded, config)
        if certified is not None and _FORMAT.value != "stablehlo":  # would take as long to compile as to write
            advice = "calibrate with images more like those that the network will see" if _INT8.value else "report this"
            runtimes.check(written, name, f"{advice}; --nocertificate writes it all the same")
        size = f"{_place(written, path) / 1e6:.1f} MB"
    network = f"YOLOX-{loaded.name}" if is_weights_alone else loaded.describe(size_hw)
    print(f"{name}: {network}, {len(loaded.class_names)} classes, {size}")
    if card is not None:
        _write_card(card, loaded, Path(name).name)


def _place(written: Path, path: Path) -> int:
    """Copies the file or page to where the user wants it, and returns the number of bytes."""
    if written.is_dir():
        return web_page.place(written, path)
    storage.write_bytes(path, written.read_bytes())
    return written.stat().st_size


def _write_int8(folder: Path, loaded: Pretrained, config: ExportConfig, name: str) -> Path:
    """Writes an INT8 file and a float32 file beside it, and prints how they compare. Returns the path of the first.

    Raises:
      UserError: INT8 loses too much AP; `name` is where the file would go.
    """
    from yolox_jax.evaluation.exported import check_drop, measure  # the loaders, which only INT8 needs, with grain

    source = None if _CONFIG.value is None else _evaluation(loaded)  # its faults are known before the work begins
    pictures = _pictures(cast(list[str], _CALIBRATE.value), loaded, MOST_IMAGES)
    images_BHW3 = np.stack([letterbox(each, config.size_hw)[0] for each in pictures])
    plan = make_plan(folded_tensors(loaded), images_BHW3)
    stay = ", ".join((*plan.float_blocks, "the prediction layers"))
    print(f"INT8 calibrated with {len(images_BHW3)} images; {stay} stay in float32")
    form = str(_FORMAT.value)
    files = {"float32": (form, config), "INT8": (form, dataclasses.replace(config, int8=plan))}
    found = measure(files, loaded, images_BHW3[0], source, folder, print_progress)
    for kind, each in found.items():
        ap = "" if each.ap is None else f", AP {each.ap:.4f}"
        print(f"{kind:<8} {each.megabytes:6.2f} MB {each.milliseconds:7.1f} ms{ap}")
    before, after = found["float32"].ap, found["INT8"].ap
    if before is None or after is None:
        _log.warning("the AP of INT8 is not known: give --evaluate and the --config of a data set with boxes")
    else:
        check_drop(name, before, after, _MAX_DROP.value)
    return found["INT8"].path


def _evaluation(loaded: Pretrained) -> "Evaluation":
    """Opens the data set of --config, whose classes must be those of the weights."""
    from yolox_jax.cli import from_config
    from yolox_jax.evaluation.exported import Evaluation

    config = _CONFIG.value.copy_and_resolve_references()
    config.data.sixteen_bit = loaded.image_config.sixteen_bit
    source = from_config.open_source(config, "val")
    if source.class_names != loaded.class_names:
        raise UserError(
            f"the classes of {_WEIGHTS.value} and of the data set of --config differ "
            f"({difference(loaded.class_names, source.class_names, 'weights', 'val')})",
            "give the config of the run, and its config.data.classes",
        )
    detect = from_config.whole_image_detect_config(config)
    return Evaluation(source, dataclasses.replace(detect, tta=False, multi_label=False), config.eval.metric)


def _write_card(card: Path, loaded: Pretrained, file: str) -> None:
    """Writes the model card, with the results of the run if the weights are one."""
    spec = str(_WEIGHTS.value)
    # Where it lies: the copy of one in a bucket has no results.json beside it.
    found = checkpoint.locate(storage.resolve(spec)) if find_weights(spec).checkpoint else None
    results = model_card.results_of(found, spec)
    storage.write_bytes(card, model_card.model_card(loaded, file, results).encode())
    print(f"{_CARD.value}: model card")


def _certify(loaded: Pretrained, size_hw: tuple[int, int], detect: DetectConfig) -> Certificate:
    """Makes the certificate: what the weights detect in float32, whatever the dtype of the file.

    TPUs and GPUs would compute float32 with fewer bits, and runtimes on a CPU do not.
    """
    float32 = dataclasses.replace(loaded, model=yolox.create(loaded.name, len(loaded.class_names)))
    run = of_one_image(pretrained.make_detect(float32, detect), detect, size_hw)
    if _INT8.value:
        bound = certificate.INT8
    else:
        bound = certificate.FLOAT32 if _DTYPE.value == "float32" else certificate.SIXTEEN_BITS
    pictures = None if _IMAGES.value is None else _pictures(_IMAGES.value, loaded)
    with jax.default_matmul_precision("highest"):
        certified = certificate.make(run, loaded.class_names, size_hw, detect, bound, pictures)
    if not certified.num_detections:
        _log.warning(
            "nothing is detected in the test images, so --verify can only find what should not be there: give "
            "some of your own with --images, which then travel with the file"
        )
    return certified


def _pictures(named: list[str], loaded: Pretrained, most: int | None = None) -> Iterator[np.ndarray]:
    """Reads the images that are named, or `most` of them, from all parts of the list."""
    found, errors = media.find(named)
    for error in errors:
        raise error
    images = [each for each in found if each.kind == "image"]
    if not images:
        raise UserError(f"no image is in {', '.join(named)}", "give images, not videos")
    if most is not None:
        images = images[:: -(-len(images) // most)]
    return (media.read_image(each, loaded.image_config) for each in images)


def _verify(path: str) -> None:
    """Runs a file on the images of its certificate, prints the differences, and raises UserError beyond the bound."""
    certified, run = runtimes.open_exported(path)
    given: dict[str, Any] = {"box_pixels": _BOX_BOUND.value, "score": _SCORE_BOUND.value}
    bound = dataclasses.replace(certified.bound, **{name: value for name, value in given.items() if value is not None})
    found = certificate.compare(certified, run, bound)
    print(f"{path}: {found.describe(certified, bound)}")
    if not found.is_within(bound):
        raise UserError(
            f"{path} does not find what its weights find",
            "export it again; if this device computes with fewer bits, give --box_bound and --score_bound",
        )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
