"""Writes and reads a detector as one file: a StableHLO program with the weights inside, and a json that describes it.

Reading needs JAX but not the code of the network, so later changes to models/ do not affect old files.
"""

import dataclasses
import functools
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from yolox_jax.errors import UserError, writing
from yolox_jax.types import Detections

PLATFORMS = ("cpu", "cuda", "tpu")
_PROGRAM, _META = "program.stablehlo", "yolox_jax.json"
_FORMAT_VERSION = 1
_FIELDS = ("class_names", "size_hw", "batch", "platforms")


@dataclasses.dataclass(frozen=True)
class Exported:
    """A program: images [B, H, W, 3] uint8 BGR -> boxes [B, D, 4] xyxy in input pixels, scores, labels, mask [B, D]."""

    program: jax.export.Exported
    class_names: tuple[str, ...]
    size_hw: tuple[int, int]
    batch: int | None  # B, or None if any number of images will do

    def write(self, path: str | Path) -> None:
        """Writes the file.

        Raises:
          UserError: the file cannot be written.
        """
        meta = {
            "format_version": _FORMAT_VERSION,
            "class_names": self.class_names,
            "size_hw": self.size_hw,
            "batch": self.batch,
            "platforms": self.program.platforms,
        }
        program = bytes(self.program.serialize())  # before the file is opened: if this fails, no file is left behind
        with writing(path), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_META, json.dumps(meta))
            archive.writestr(_PROGRAM, program)

    @classmethod
    def read(cls, path: str | Path) -> "Exported":
        """Reads a file that `write` wrote.

        Raises:
          UserError: the file cannot be read or is damaged, or it is for another version or another platform.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                meta, serialized = json.loads(archive.read(_META)), archive.read(_PROGRAM)
            version = meta["format_version"]
            if version == _FORMAT_VERSION:  # other versions may have other fields
                class_names, size_hw, batch, platforms = (meta[field] for field in _FIELDS)
        except (zipfile.BadZipFile, zlib.error, KeyError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error})", "copy or export it again") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error})", "check the path") from error
        if version != _FORMAT_VERSION:
            raise UserError(
                f"{path} has file format {version}, but this version of yolox_jax reads format {_FORMAT_VERSION}",
                "export it again, or read it with the version of yolox_jax that wrote it",
            )
        if jax.default_backend() not in [_backend(platform) for platform in platforms]:
            raise UserError(
                f"{path} was exported for {', '.join(platforms)}, but JAX runs on {jax.default_backend()} here",
                f"export it for {jax.default_backend()}",
            )
        return cls(_deserialize(path, serialized), tuple(class_names), tuple(size_hw), batch)

    def predict(self, images_BHW3: np.ndarray) -> Detections:
        """Runs the program; it is compiled once for each B."""
        return Detections(*jax.device_get(self._compiled(images_BHW3)))

    @functools.cached_property
    def _compiled(self) -> Callable[[np.ndarray], tuple[jax.Array, ...]]:
        return jax.jit(self.program.call)


def export(
    detect: Callable[[jax.Array], Detections],
    class_names: tuple[str, ...],
    size_hw: tuple[int, int],
    batch: int | None,
    platforms: Sequence[str] = PLATFORMS,
) -> Exported:
    """Exports a function of images [B, H, W, 3] uint8 BGR to Detections, with the arrays that it closes over (weights).

    `batch` is B; with None the program takes any number of images.
    """

    @jax.jit
    def as_tuple(images_BHW3: jax.Array) -> tuple[jax.Array, ...]:  # so that the file needs no type of this package
        found = detect(images_BHW3)
        return found.boxes, found.scores, found.labels, found.mask

    num_images = batch or jax.export.symbolic_shape("B", constraints=["B >= 1"])[0]
    images = jax.ShapeDtypeStruct((num_images, *size_hw, 3), jnp.uint8)
    return Exported(jax.export.export(as_tuple, platforms=platforms)(images), class_names, size_hw, batch)


def is_exported(path: str | Path) -> bool:
    """Checks whether `path` is a file that `Exported.write` wrote."""
    if not Path(path).is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _META in archive.namelist()


def _deserialize(path: str | Path, serialized: bytes) -> jax.export.Exported:
    """Deserializes the program of a file; raises UserError if it is of a JAX too old or too new for this one."""
    oldest = jax.export.minimum_supported_calling_convention_version
    newest = jax.export.maximum_supported_calling_convention_version
    try:
        program = jax.export.deserialize(bytearray(serialized))
        if not oldest <= program.calling_convention_version <= newest:
            raise ValueError(f"version {program.calling_convention_version}, not {oldest} to {newest}")
    except Exception as error:  # jax and flatbuffers raise errors of many types
        raise UserError(
            f"{path} holds a program that jax {jax.__version__} cannot read ({error})", "export it again with this jax"
        ) from error
    return program


def _backend(platform: str) -> str:
    """Returns the name of a platform in jax.default_backend()."""
    return "gpu" if platform in ("cuda", "rocm") else platform
