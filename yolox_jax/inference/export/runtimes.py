"""Opens an exported file with its own runtime, to compare it with its certificate.

A new format needs a function (path) -> Opened and a line in `_OPENERS`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from yolox_jax import boxes
from yolox_jax.detection.anchors import decode, make_anchors
from yolox_jax.errors import UserError
from yolox_jax.inference.export import certificate, exported_file, stablehlo, web_page
from yolox_jax.inference.export.certificate import Certificate, Run
from yolox_jax.inference.predict import DetectConfig, of_one_image
from yolox_jax.types import Detections

# The text of a certificate, and the file as a function of thresholds, which files that have their own do not use.
Opened = tuple[str | bytes | None, Callable[[DetectConfig], Run]]

CERTIFICATE = "certificate"  # its name in the metadata of ONNX and LiteRT
_ONNX_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def open_exported(path: str | Path) -> tuple[Certificate, Run]:
    """Opens a file, or the model of a web page's folder. Returns its certificate, and the file as a function.

    The thresholds are those of the certificate.

    Raises:
      UserError: the file cannot be read, has no certificate, or its runtime is not installed.
    """
    text, with_thresholds = _open(path)
    if text is None:
        raise UserError(f"{path} has no certificate", "export it again, without --nocertificate")
    certified = certificate.read(text, path)
    return certified, with_thresholds(certified.detect)


def open_run(path: str | Path, detect: DetectConfig) -> Run:
    """Opens a file as a function. A file that ends before NMS gets the thresholds of `detect`; others have their own.

    Raises:
      UserError: the file cannot be read, or its runtime is not installed.
    """
    return _open(path)[1](detect)


def _open(path: str | Path) -> Opened:
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
    return _OPENERS[ending](path)


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
    intersection_NN, union_NN = boxes.pairwise_intersection_and_union(boxes_N4, boxes_N4)
    suppresses_NN = (intersection_NN > iou * union_NN) & (label_N[:, None] == label_N[None, :])
    kept_N = mask_N.copy()
    for i in np.flatnonzero(mask_N):
        if kept_N[i]:
            kept_N[i + 1 :] &= ~suppresses_NN[i, i + 1 :]
    return kept_N


def filled(run: Run, batch: int | None) -> Run:
    """Gives a program for exactly `batch` images one image, by repeating it; with None or 1, returns `run` itself."""
    if batch in (None, 1):
        return run

    def first(images_BHW3: np.ndarray) -> Detections:
        found = run(np.repeat(images_BHW3, batch, axis=0))
        return Detections(*(each[:1] for each in (found.boxes, found.scores, found.labels, found.mask)))

    return first


def _open_stablehlo(path: str | Path) -> Opened:
    text = exported_file.read_certificate(path)
    program = stablehlo.Exported.read(path)

    def with_thresholds(detect: DetectConfig) -> Run:
        return filled(of_one_image(program.predict, detect, program.size_hw), program.batch)

    return text, with_thresholds


def _open_onnx(path: str | Path) -> Opened:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"an ONNX file needs ONNX Runtime ({error})", "pip install 'onnxruntime>=1.20'") from error
    try:
        # Not all that there are: TensorRT would compile the file first.
        providers = [each for each in _ONNX_PROVIDERS if each in onnxruntime.get_available_providers()]
        session = onnxruntime.InferenceSession(path, providers=providers)
    except Exception as error:  # onnxruntime raises errors of many types
        raise UserError(f"{path} cannot be opened by ONNX Runtime ({error})", "export it again") from error
    (image_input,) = session.get_inputs()
    batch = image_input.shape[0] if isinstance(image_input.shape[0], int) else None

    def with_thresholds(detect: DetectConfig) -> Run:
        if [each.name for each in session.get_outputs()] == ["output"]:  # the network alone
            return filled(_raw_run(session, detect), batch)
        outputs = ["boxes", "scores", "labels", "mask"]
        return filled(lambda images: Detections(*session.run(outputs, {image_input.name: images})), batch)

    return session.get_modelmeta().custom_metadata_map.get(CERTIFICATE), with_thresholds


def _raw_run(session: Any, detect: DetectConfig) -> Run:
    def run(images_BHW3: np.ndarray) -> Detections:
        images_B3HW = images_BHW3.transpose(0, 3, 1, 2).astype(np.float32)
        (output_BAR,) = session.run(["output"], {"images": images_B3HW})
        box_BA4 = decode(jnp.asarray(output_BAR[..., :4]), make_anchors(images_BHW3.shape[1:3]))
        prob_BAC = output_BAR[..., 4:5] * output_BAR[..., 5:]
        return select(np.asarray(boxes.cxcywh_to_xyxy(box_BA4)), prob_BAC, detect)

    return run


def _open_litert(path: str | Path) -> Opened:
    try:
        from yolox_jax.inference.export import litert_file
    except ImportError as error:
        raise UserError(
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


_OPENERS: dict[str, Callable[[str | Path], Opened]] = {
    exported_file.ENDING: _open_stablehlo,
    ".onnx": _open_onnx,
    ".tflite": _open_litert,
}
