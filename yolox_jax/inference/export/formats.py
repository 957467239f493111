"""A detector in each of the forms that it is shipped in."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from yolox_jax.inference import pretrained
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.inference.pretrained import Pretrained
from yolox_jax.weights import official
from yolox_jax.weights.torch_writer import save_pth


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What is exported; a .pth file needs nothing of it."""

    size_hw: tuple[int, int]
    batch: int | None  # images at a time; any number where None
    detect: DetectConfig | None  # the network alone where None, which only ONNX knows


def _write_stablehlo(path: Path, loaded: Pretrained, config: ExportConfig) -> None:
    if config.detect is None:
        raise ValueError("--raw is for --format=onnx")
    pretrained.export(loaded, config.size_hw, config.batch, config.detect).write(path)


def _write_onnx(path: Path, loaded: Pretrained, config: ExportConfig) -> None:
    try:
        import onnx

        from yolox_jax.inference.export import onnx_file
    except ImportError as error:
        raise ValueError(f"--format=onnx needs the package onnx ({error}): pip install 'onnx>=1.17'") from error
    if config.detect is None:
        model = onnx_file.raw_model(loaded, config.size_hw, config.batch)
    else:
        model = onnx_file.detecting_model(loaded, config.size_hw, config.batch, config.detect)
    onnx.save(model, path)


def _write_pth(path: Path, loaded: Pretrained, config: ExportConfig) -> None:
    save_pth(path, official.to_state_dict(loaded.variables, loaded.model))


Writer = Callable[[Path, Pretrained, ExportConfig], None]
# The ending of the file, and what writes it.
FORMATS: dict[str, tuple[str, Writer]] = {
    "stablehlo": (".stablehlo.zip", _write_stablehlo),
    "onnx": (".onnx", _write_onnx),
    "pth": (".pth", _write_pth),
}
