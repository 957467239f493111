"""Lists the export formats by name: the file extension, and the function that writes the file."""

import dataclasses
import functools
import importlib
import io
from collections.abc import Callable
from pathlib import Path

from yolox_jax import storage
from yolox_jax.errors import UserError
from yolox_jax.inference.export import stablehlo, web_page
from yolox_jax.inference.export.certificate import Certificate
from yolox_jax.inference.export.exported_file import ENDING
from yolox_jax.inference.export.int8 import Int8Plan
from yolox_jax.inference.export.runtimes import CERTIFICATE
from yolox_jax.inference.predict import DetectConfig, predict_images
from yolox_jax.inference.pretrained import DETECTOR_CONFIG, Pretrained
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.weights import official, safetensors_file
from yolox_jax.weights.safetensors_file import About
from yolox_jax.weights.torch_writer import save_pth


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Settings of an export; .pth and .safetensors files, which are weights alone, use none of them."""

    size_hw: tuple[int, int]
    batch: int | None  # images per call, or None if any number will do
    detect: DetectConfig | None  # None exports the network without decoding and NMS, for ONNX only
    input_dtype: str = "uint8"  # of the images, or "float32"; for LiteRT only
    certificate: Certificate | None = None  # goes into the file, for tools/export --verify
    first_conf: float = DETECTOR_CONFIG.conf  # web: the threshold that the page begins with
    int8: Int8Plan | None = None  # quantizes the network; for ONNX and LiteRT only


def check_int8_packages(form: str) -> None:
    """Raises UserError if INT8 of a format, onnx or litert, needs a package that is not installed.

    Calibration and evaluation may take hours: call this before them.
    """
    try:
        importlib.import_module(f"yolox_jax.inference.export.int8_{form}")  # imports the quantizer and the runtime
    except ImportError as error:
        needed = {"onnx": "onnx onnxruntime", "litert": "ai-edge-litert litert-quantizer"}[form]
        raise UserError(f"--format={form} --int8 needs a package ({error})", f"pip install {needed}") from error


def _write_stablehlo(path: Path, loaded: Pretrained, config: ExportConfig) -> None:
    if config.detect is None:
        raise UserError("--raw was given with --format=stablehlo", "leave --raw out, or choose --format=onnx")
    variables = fold_batch_norm(loaded.model, loaded.variables)
    detect = functools.partial(predict_images, loaded.model, variables, config=config.detect)
    sixteen_bit = loaded.image_config.sixteen_bit
    arguments = detect, loaded.class_names, config.size_hw, config.batch
    program = stablehlo.export(*arguments, sixteen_bit=sixteen_bit, tiling=config.detect.tiling)
    program.write(path, None if config.certificate is None else config.certificate.to_json())


def _write_onnx(path: Path, loaded: Pretrained, config: ExportConfig) -> None:
    storage.write_bytes(path, _onnx_model("onnx", loaded, config))


def _write_web(path: Path, loaded: Pretrained, config: ExportConfig) -> None:
    if config.detect is None:
        raise UserError("--raw was given with --format=web", "leave --raw out, or choose --format=onnx")
    title = loaded.describe(config.size_hw)
    about = web_page.about_model(title, config.size_hw, config.first_conf, config.detect.conf)
    web_page.write(path, _onnx_model("web", loaded, dataclasses.replace(config, batch=1), **about))


def _onnx_model(name: str, loaded: Pretrained, config: ExportConfig, **metadata: str) -> bytes:
    try:
        import onnx

        from yolox_jax.inference.export import onnx_file
    except ImportError as error:
        raise UserError(f"--format={name} needs the package onnx ({error})", "pip install 'onnx>=1.17'") from error
    if config.detect is None:
        model = onnx_file.raw_model(loaded, config.size_hw, config.batch)
    else:
        model = onnx_file.detecting_model(loaded, config.size_hw, config.batch, config.detect)
    if config.int8 is not None:
        check_int8_packages("onnx")
        from yolox_jax.inference.export import int8_onnx

        model = int8_onnx.quantize(model, config.int8)
    if config.certificate is not None:
        metadata[CERTIFICATE] = config.certificate.to_json()
    for key, text in metadata.items():
        onnx_file.add_metadata(model, key, text)
    file = io.BytesIO()
    onnx.save(model, file)
    return file.getvalue()


def _write_litert(path: Path, loaded: Pretrained, config: ExportConfig) -> None:
    try:
        from yolox_jax.inference.export import litert_file
    except ImportError as error:
        raise UserError(
            f"--format=litert needs the package ai-edge-litert ({error})", "pip install 'ai-edge-litert>=2.1.0'"
        ) from error
    metadata = {} if config.certificate is None else {CERTIFICATE: config.certificate.to_json()}
    model = litert_file.detecting_model(loaded, config.size_hw, config.batch or 1, config.input_dtype, **metadata)
    if config.int8 is not None:
        check_int8_packages("litert")
        from yolox_jax.inference.export import int8_litert

        model = int8_litert.quantize(model, config.int8)
    storage.write_bytes(path, model)


def _write_pth(path: Path, loaded: Pretrained, config: ExportConfig) -> None:
    save_pth(path, official.to_state_dict(loaded.variables, loaded.model))


def _write_safetensors(path: Path, loaded: Pretrained, config: ExportConfig) -> None:
    about = About(loaded.name, loaded.class_names, loaded.size_hw, loaded.image_config.sixteen_bit)
    safetensors_file.save(path, official.to_state_dict(loaded.variables, loaded.model), about)


Writer = Callable[[Path, Pretrained, ExportConfig], None]
FORMATS: dict[str, tuple[str, Writer]] = {  # name: file extension, writer
    "stablehlo": (ENDING, _write_stablehlo),
    "onnx": (".onnx", _write_onnx),
    "litert": (".tflite", _write_litert),
    "web": ("_web", _write_web),  # a folder
    "pth": (".pth", _write_pth),
    "safetensors": (safetensors_file.ENDING, _write_safetensors),
}
