"""Opens an exported file with its own runtime, to compare it with its certificate.

A new format needs a function (path, on_cpu) -> Opened and a line in `_OPENERS`.
"""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from yolox_jax import boxes, storage
from yolox_jax.detection.anchors import decode, make_anchors
from yolox_jax.errors import UserError
from yolox_jax.inference.export import certificate, exported_file, stablehlo, web_page
from yolox_jax.inference.export.certificate import Certificate, Run
from yolox_jax.inference.predict import DetectConfig, of_one_image
from yolox_jax.types import Detections

_log = logging.getLogger("yolox_jax.inference")

# The text of a certificate, and the file as a function of thresholds, which files that have their own do not use.
Opened = tuple[str | bytes | None, Callable[[DetectConfig], Run]]

CERTIFICATE = "certificate"  # its name in the metadata of ONNX and LiteRT
_ONNX_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class RuntimeMissingError(UserError):
    """The package that runs a file is not installed."""


def open_exported(path: str | Path, *, on_cpu: bool = False) -> tuple[Certificate, Run]:
    """Opens a file, or the model of a web page's folder. Returns its certificate, and the file as a function.

    The thresholds are those of the certificate. With `on_cpu`, ONNX Runtime uses no GPU, which by default computes with
    fewer bits.

    Raises:
      UserError: the file cannot be read, or has no certificate.
      RuntimeMissingError: its runtime is not installed.
    """
    text, with_thresholds = _open(path, on_cpu)
    if text is None:
        raise UserError(f"{path} has no certificate", "export it again, without --nocertificate")
    certified = certificate.read(text, path)
    return certified, with_thresholds(certified.detect)


def check(written: Path, name: str, advice: str, log: Callable[[str], object] = print) -> None:
    """Compares a file with its certificate before it gets its place, `name`. Warns if its runtime is not installed.

    Raises:
      UserError: it does not find what its weights find, with `advice`; or its runtime does not open it.
    """
    try:
        certified, run = open_exported(written, on_cpu=True)
    except RuntimeMissingError as error:
        _log.warning("%s is not compared with its certificate: %s", name, error)
        return
    except UserError as error:
        raise UserError(
            f"{name} is not written, since its runtime does not open it ({error.what})",
            "update the runtime; --nocertificate writes the file all the same",
        ) from error
    found = certificate.compare(certified, run)
    log(f"{name}: {found.describe(certified, certified.bound)}")
    if not found.is_within(certified.bound):
        raise UserError(f"{name} would not find what its weights find, so it is not written", advice)


def open_run(path: str | Path, detect: DetectConfig) -> Run:
    """Opens a file as a function. A file that ends before NMS gets the thresholds of `detect`; others have their own.

    Raises:
      UserError: the file cannot be read, or its runtime is not installed.
    """
    return _open(path)[1](detect)


def open_network(path: Path, detect: DetectConfig) -> Run:
    """Opens an ONNX or LiteRT file as a function with the thresholds of `detect`, although the file has its own.

    The network is that of the file; NMS is `select`.
    """
    if path.suffix != ".onnx":
        return open_run(path, detect)
    from yolox_jax.inference.export import onnx_file

    with tempfile.TemporaryDirectory(prefix="yolox_jax_") as folder:
        network = Path(folder, path.name)
        onnx_file.extract_network(path, network)
        return open_run(network, detect)


def _open(path: str | Path, on_cpu: bool = False) -> Opened:
    path = storage.local_path(path)
    if Path(path, web_page.MODEL).is_file():  # the folder of a page
        path = Path(path, web_page.MODEL)
    name = str(path)
    ending = exported_file.ENDING if exported_file.is_exported(path) else next(filter(name.endswith, _OPENERS), None)
    if ending is None:
        raise UserError(
            f"{path} is not an exported file that can be run",
            f"give one of {', '.join(_OPENERS)}, or the folder of a page",
        )
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}", "check the path")
    return _OPENERS[ending](path, on_cpu)


def select(boxes_BA4: np.ndarray, prob_BAC: np.ndarray, config: DetectConfig) -> Detections:
    """Applies threshold and NMS to decoded boxes xyxy and scores of all anchors, as detection/postprocess.py does.

    For files that end before NMS. `config.multi_label`, `config.tta` and `config.slices` are not supported.
    """
    num_candidates = min(config.num_candidates, boxes_BA4.shape[1])
    score_BA, label_BA = prob_BAC.max(axis=2), prob_BAC.argmax(axis=2).astype(np.int32)
    index_BN = np.argsort(-score_BA, axis=1, kind="stable")[:, :num_candidates]
    box_BN4 = np.take_along_axis(boxes_BA4, index_BN[..., None], axis=1)
    score_BN, label_BN = (np.take_along_axis(each, index_BN, axis=1) for each in (score_BA, label_BA))
    images = zip(box_BN4, label_BN, score_BN >= config.conf, strict=True)
    kept_BN = np.stack([_keep_mask(box_N4, label_N, mask_N, config.iou) for box_N4, label_N, mask_N in images])
    kept_BN &= np.cumsum(kept_BN, axis=1) <= config.max_detections
    return Detections(box_BN4, score_BN, label_BN, kept_BN)  # type: ignore[arg-type]  # numpy for jax arrays


def _keep_mask(boxes_N4: np.ndarray, label_N: np.ndarray, mask_N: np.ndarray, iou: float) -> np.ndarray:
    """Greedy NMS, best box first, as detection/nms.py: in numpy, so that nothing is compiled for a few images."""
    num_real = np.count_nonzero(mask_N)  # the first ones, since their scores are the best
    real_N4, real_N = boxes_N4[:num_real], label_N[:num_real]
    intersection_NN, union_NN = boxes.pairwise_intersection_and_union(real_N4, real_N4)
    suppresses_NN = (intersection_NN > iou * union_NN) & (real_N[:, None] == real_N[None, :])
    kept_N = mask_N.copy()
    for i in range(num_real):
        if kept_N[i]:
            kept_N[i + 1 : num_real] &= ~suppresses_NN[i, i + 1 :]
    return kept_N


def filled(run: Run, batch: int | None) -> Run:
    """Gives a program for exactly `batch` images one image, by repeating it; with None or 1, returns `run` itself."""
    if batch in (None, 1):
        return run

    def first(images_BHW3: np.ndarray) -> Detections:
        found = run(np.repeat(images_BHW3, batch, axis=0))
        return Detections(*(each[:1] for each in (found.boxes, found.scores, found.labels, found.mask)))

    return first


def _open_stablehlo(path: str | Path, on_cpu: bool) -> Opened:
    text = exported_file.read_certificate(path)
    program = stablehlo.Exported.read(path)

    def with_thresholds(detect: DetectConfig) -> Run:
        return filled(of_one_image(program.predict, detect, program.size_hw), program.batch)

    return text, with_thresholds


def _open_onnx(path: str | Path, on_cpu: bool) -> Opened:
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissingError(
            f"an ONNX file needs ONNX Runtime ({error})", "pip install 'onnxruntime>=1.20'"
        ) from error
    try:
        # Not all that there are: TensorRT would compile the file first.
        wanted = _ONNX_PROVIDERS[-1:] if on_cpu else _ONNX_PROVIDERS
        providers = [each for each in wanted if each in onnxruntime.get_available_providers()]
        session = onnxruntime.InferenceSession(path, providers=providers)
    except Exception as error:  # onnxruntime raises errors of many types
        raise UserError(f"{path} cannot be opened by ONNX Runtime ({error})", "export it again") from error
    (image_input,) = session.get_inputs()
    batch = image_input.shape[0] if isinstance(image_input.shape[0], int) else None

    def with_thresholds(detect: DetectConfig) -> Run:
        if len(session.get_outputs()) == 1:  # the network alone
            return filled(_raw_run(session, detect), batch)
        outputs = ["boxes", "scores", "labels", "mask"]
        return filled(lambda images: Detections(*session.run(outputs, {image_input.name: images})), batch)

    return session.get_modelmeta().custom_metadata_map.get(CERTIFICATE), with_thresholds


def _raw_run(session: Any, detect: DetectConfig) -> Run:
    (images,) = session.get_inputs()
    takes_pixels = images.type == "tensor(uint8)"

    def run(images_BHW3: np.ndarray) -> Detections:
        given = images_BHW3 if takes_pixels else images_BHW3.transpose(0, 3, 1, 2).astype(np.float32)
        (output_BAR,) = session.run(None, {images.name: given})
        box_BA4 = decode(jnp.asarray(output_BAR[..., :4]), make_anchors(images_BHW3.shape[1:3]))
        prob_BAC = output_BAR[..., 4:5] * output_BAR[..., 5:]
        return select(np.asarray(boxes.cxcywh_to_xyxy(box_BA4)), prob_BAC, detect)

    return run


def _open_litert(path: str | Path, on_cpu: bool) -> Opened:
    try:
        from yolox_jax.inference.export import litert_file
    except ImportError as error:
        raise RuntimeMissingError(
            f"a LiteRT file needs ai-edge-litert ({error})", "pip install 'ai-edge-litert>=2.1.0'"
        ) from error
    try:
        model = Path(path).read_bytes()
        text = litert_file.read_metadata(model).get(CERTIFICATE)
        runner = litert_file.LiteRTRunner(model)
    except Exception as error:  # flatbuffers and the runtime raise errors of many types
        raise UserError(f"{path} cannot be opened by LiteRT ({error})", "export it again") from error

    def with_thresholds(detect: DetectConfig) -> Run:
        return filled(lambda images: select(*runner(images), detect), runner.batch)

    return text, with_thresholds


_OPENERS: dict[str, Callable[[str | Path, bool], Opened]] = {
    exported_file.ENDING: _open_stablehlo,
    ".onnx": _open_onnx,
    ".tflite": _open_litert,
}
