"""A detector in one file: its program as StableHLO, the weights inside, and a json of what the program cannot say.

Reading needs JAX and this file, not the network's code: a file detects the same whatever becomes of the models here.
"""

import dataclasses
import functools
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.export
import numpy as np

from yolox_jax.types import Detections

_PROGRAM, _META = "program.stablehlo", "yolox_jax.json"
_FORMAT_VERSION = 1
_FIELDS = ("class_names", "size_hw", "batch", "platforms")


@dataclasses.dataclass(frozen=True)
class Exported:
    """A program: images [B, H, W, 3] uint8 BGR -> boxes [B, D, 4] xyxy in input pixels, scores, labels, mask [B, D]."""

    program: jax.export.Exported
    class_names: tuple[str, ...]
    size_hw: tuple[int, int]
    batch: int | None  # B; None where any will do

    def write(self, path: str | Path) -> None:
        meta = {
            "format_version": _FORMAT_VERSION,
            "class_names": self.class_names,
            "size_hw": self.size_hw,
            "batch": self.batch,
            "platforms": self.program.platforms,
        }
        program = bytes(self.program.serialize())  # before the file is there: what fails leaves none
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_META, json.dumps(meta))
            archive.writestr(_PROGRAM, program)

    @classmethod
    def read(cls, path: str | Path) -> "Exported":
        """Raises ValueError for a damaged file and for one of another version."""
        try:
            with zipfile.ZipFile(path) as archive:
                meta, serialized = json.loads(archive.read(_META)), archive.read(_PROGRAM)
            version = meta["format_version"]
            if version == _FORMAT_VERSION:  # another may have other fields
                class_names, size_hw, batch, platforms = (meta[field] for field in _FIELDS)
        except (zipfile.BadZipFile, zlib.error, KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): copy or export it again") from error
        if version != _FORMAT_VERSION:
            raise ValueError(
                f"{path} has format {version}, this version of yolox_jax reads {_FORMAT_VERSION}: "
                "export it again, or open it with the version that wrote it"
            )
        if jax.default_backend() not in [_platform(name) for name in platforms]:
            raise ValueError(
                f"{path} is for {', '.join(platforms)}, this is {jax.default_backend()}: export it for that"
            )
        program = jax.export.deserialize(bytearray(serialized))
        return cls(program, tuple(class_names), tuple(size_hw), batch)

    def predict(self, images_BHW3: np.ndarray) -> Detections:
        """Runs the program; compiled for each new B."""
        return Detections(*jax.device_get(self._compiled(images_BHW3)))

    @functools.cached_property
    def _compiled(self) -> Callable[[np.ndarray], tuple[jax.Array, ...]]:
        return jax.jit(self.program.call)


def is_exported(path: str | Path) -> bool:
    """Whether a file is of this kind; False where there is none."""
    if not Path(path).is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _META in archive.namelist()


def _platform(name: str) -> str:
    return "gpu" if name in ("cuda", "rocm") else name
