"""Writes and reads a detector as one file: a StableHLO program with the weights inside, and a json that describes it.

Reading needs JAX but not the code of the network, so later changes to models/ do not affect old files.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from yolox_jax.data.tiling import Tiling, tiling_of
from yolox_jax.errors import UserError
from yolox_jax.inference.export import exported_file
from yolox_jax.inference.export.exported_file import Description
from yolox_jax.types import Detections, Tiles

PLATFORMS = ("cpu", "cuda", "tpu")
# A custom call may run code at any address of the process. JAX resolves the first of these, which checks the number of
# images, before XLA compiles; XLA itself has the second, as which older versions of jax write `top_k`.
_ALLOWED_CALLS = {"shape_assertion", "mhlo.topk"}
_CUSTOM_CALL = re.compile(r"custom_call(?: @([\w.]+)\()?")
_OUTSIDE_CALL = re.compile(r"stablehlo\.(infeed|outfeed|send|recv)\b")  # waits for a partner outside the program
_OUTPUT_DTYPES = ("float32", "float32", "int32", "bool")  # boxes, scores, labels, mask


@dataclasses.dataclass(frozen=True)
class Exported:
    """A program: images [B, H, W, 3] uint8 BGR -> boxes [B, D, 4] xyxy in input pixels, scores, labels, mask [B, D].

    With a tiling it takes the five arrays of Tiles for one image, and the boxes are in pixels of the image.
    """

    program: jax.export.Exported
    class_names: tuple[str, ...]
    size_hw: tuple[int, int]
    batch: int | None  # B, or None if any number of images will do
    sixteen_bit: str = "full"  # how images of 16 bits became those of training
    tiling: Tiling | None = None  # how images are cut

    def write(self, path: str | Path, certificate: str | None = None) -> None:
        """Writes the file, with its certificate (certificate.py) as text.

        Raises:
          UserError: the file cannot be written.
        """
        program = bytes(self.program.serialize())  # before the file is opened: if this fails, no file is left behind
        platforms = tuple(self.program.platforms)
        described = Description(self.class_names, self.size_hw, self.batch, platforms, self.sixteen_bit)
        if self.tiling:
            described = dataclasses.replace(described, **dataclasses.asdict(self.tiling))
        exported_file.write(path, described, program, certificate)

    @classmethod
    def read(cls, path: str | Path) -> "Exported":
        """Reads a file that `write` wrote. Nothing of the program is compiled yet.

        Raises:
          UserError: the file cannot be read, is damaged or changed, is for another version or platform, or holds a
            program that calls code outside itself.
        """
        described, serialized = exported_file.read(path)
        backend = jax.default_backend()
        if backend not in [_backend(platform) for platform in described.platforms]:
            raise UserError(
                f"{path} was exported for {', '.join(described.platforms)}, but JAX runs on {backend} here",
                f"export it for {backend}",
            )
        program, text = _deserialize(path, serialized)
        if unknown := _unknown_calls(text):
            raise UserError(
                f"{path} holds a program that calls code outside itself ({', '.join(unknown)}), which is not run",
                "use only files that yolox_jax exported",
            )
        if not _fits(program, described):
            raise UserError(f"{path} is damaged (program and description differ)", "copy or export it again")
        tiling = tiling_of(described.slices, described.overlap)
        return cls(program, described.class_names, described.size_hw, described.batch, described.sixteen_bit, tiling)

    def predict(self, images: np.ndarray | Tiles) -> Detections:
        """Runs the program on images [B, H, W, 3] or Tiles [1, T, ...]; it is compiled once for each B or T.

        Raises:
          UserError: the program detects classes without names.
        """
        found = Detections(*jax.device_get(self._compiled(*jax.tree.leaves(images))))
        labels = found.labels[found.mask]
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            raise UserError(f"the program has more than its {len(self.class_names)} named classes", "export it again")
        return found

    @functools.cached_property
    def _compiled(self) -> Callable[..., tuple[jax.Array, ...]]:
        return jax.jit(self.program.call)


def export(
    detect: Callable[[Any], Detections],
    class_names: tuple[str, ...],
    size_hw: tuple[int, int],
    batch: int | None,
    platforms: Sequence[str] = PLATFORMS,
    sixteen_bit: str = "full",
    tiling: Tiling | None = None,
) -> Exported:
    """Exports a function of images [B, H, W, 3] uint8 BGR to Detections, with the arrays that it closes over (weights).

    `batch` is B; with None the program takes any number of images. `sixteen_bit` is that of training. With a tiling,
    the function is one of Tiles; the program takes one image, cut into any number of tiles.
    """

    @jax.jit
    def as_tuple(*arrays: jax.Array) -> tuple[jax.Array, ...]:  # so that the file needs no type of this package
        found = detect(Tiles(*arrays) if tiling else arrays[0])
        return found.boxes, found.scores, found.labels, found.mask

    batch = 1 if tiling else batch
    number = "T" if tiling else "B"
    rows = (1,) if tiling else ()
    num_images = (not tiling and batch) or jax.export.symbolic_shape(number, constraints=[f"{number} >= 1"])[0]
    inputs = [
        jax.ShapeDtypeStruct((*rows, num_images, *shape), dtype)
        for dtype, shape in _inputs(size_hw, tiling is not None)
    ]
    program = jax.export.export(as_tuple, platforms=platforms)(*inputs)
    return Exported(program, class_names, size_hw, batch, sixteen_bit, tiling)


def _inputs(size_hw: tuple[int, int], has_tiles: bool) -> list[tuple[str, tuple[int, ...]]]:
    """Returns dtype and shape of each input, without B, or without 1 and T: the pixels, then the places of tiles."""
    places = [("float32", (2,)), ("float32", ()), ("float32", (4,)), ("bool", ())]  # as in types.Tiles
    return [("uint8", (*size_hw, 3)), *(places if has_tiles else [])]


def _deserialize(path: str | Path, serialized: bytes) -> tuple[jax.export.Exported, str]:
    """Returns the program of a file and its text; raises UserError if it is of a JAX too old or too new."""
    oldest = jax.export.minimum_supported_calling_convention_version
    newest = jax.export.maximum_supported_calling_convention_version
    try:
        program = jax.export.deserialize(bytearray(serialized))
        if not oldest <= program.calling_convention_version <= newest:
            raise ValueError(f"version {program.calling_convention_version}, not {oldest} to {newest}")
        return program, str(program.mlir_module())
    except Exception as error:  # jax and flatbuffers raise errors of many types
        raise UserError(
            f"{path} holds a program that jax {jax.__version__} cannot read ({error})", "export it again with this jax"
        ) from error


def _unknown_calls(text: str) -> list[str]:
    """Returns what a program's text calls outside itself, besides _ALLOWED_CALLS; "?" if it has no plain name."""
    called = {match[1] or "?" for match in _CUSTOM_CALL.finditer(text)} - _ALLOWED_CALLS
    return sorted(called | {match[1] for match in _OUTSIDE_CALL.finditer(text)})


def _fits(program: jax.export.Exported, described: Description) -> bool:
    """Returns whether the program takes and returns what the description and `Exported` say."""
    if program.nr_devices != 1 or program.ordered_effects or program.unordered_effects:
        return False
    if tuple(program.platforms) != described.platforms:
        return False
    expected = _inputs(described.size_hw, has_tiles=bool(described.slices))
    trees = jax.tree.structure(((0,) * len(expected), {})), jax.tree.structure((0,) * len(_OUTPUT_DTYPES))
    if (program.in_tree, program.out_tree) != trees:
        return False
    inputs, outputs = program.in_avals, program.out_avals
    axes = 2 if described.slices else 1  # image and tile, or image
    if len(inputs[0].shape) < axes or not outputs[1].shape:
        return False
    batch, slots, lead = inputs[0].shape[:1], outputs[1].shape[1:], inputs[0].shape[:axes]
    if described.slices:
        fits_batch = batch == (described.batch,) == (1,) and jax.export.is_symbolic_dim(lead[1])
    else:
        fits_batch = jax.export.is_symbolic_dim(batch[0]) if described.batch is None else batch[0] == described.batch
    return (
        [(str(each.dtype), each.shape) for each in inputs] == [(dtype, (*lead, *shape)) for dtype, shape in expected]
        and fits_batch
        and tuple(str(each.dtype) for each in outputs) == _OUTPUT_DTYPES
        and [each.shape for each in outputs] == [(*batch, *slots, 4)] + 3 * [(*batch, *slots)]
    )


def _backend(platform: str) -> str:
    """Returns the name of a platform in jax.default_backend()."""
    return "gpu" if platform in ("cuda", "rocm") else platform
