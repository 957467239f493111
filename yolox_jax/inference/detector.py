"""Detector: Detector.from_pretrained("yolox_s")("street.jpg") detects the objects in a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, cast, overload

import jax
import numpy as np

from yolox_jax.augment.geometry import PAD_VALUE, letterbox
from yolox_jax.data.images import ImageConfig
from yolox_jax.data.tiling import Tiling
from yolox_jax.detection.anchors import check_size
from yolox_jax.errors import UserError
from yolox_jax.inference.detections import ImageDetections, from_input_pixels
from yolox_jax.inference.export import exported_file, stablehlo
from yolox_jax.inference.inputs import ImageInput, as_bgr
from yolox_jax.types import Detections
from yolox_jax.weights import download


class Detector:
    """Detects objects in images of any size, which it letterboxes to one input size.

    One program is compiled for each batch size when it is first used: usually one for a single image and one for lists,
    which are cut into batches of a fixed size; the last batch is padded.
    """

    def __init__(
        self,
        predict: Callable[[Any], Detections],
        class_names: tuple[str, ...],
        size_hw: tuple[int, int],
        batch_sizes: Sequence[int] = (1, 8),
        log: Callable[[str], object] = print,
        image_config: ImageConfig = ImageConfig(),
        tiling: Tiling | None = None,
    ):
        """Makes a detector from its parts; `from_pretrained` is the usual way to get one.

        Args:
          predict: maps images [B, H, W, 3] uint8 BGR to Detections in input pixels, as numpy arrays.
          class_names: in the order of the labels.
          size_hw: H and W of the network's input.
          batch_sizes: the values of B that `predict` is called with.
          log: called with a message before the first call for each batch size, which compiles, and with a warning if
            tiles are larger than asked for.
          image_config: how image files and PIL images are read.
          tiling: how images are cut; then `predict` maps Tiles of one image to Detections in pixels of the image.
        """
        if min(batch_sizes) < 1:
            raise UserError(f"batch_size is {min(batch_sizes)}", "give 1 or more")
        self.class_names = class_names
        self.size_hw = size_hw
        self.image_config = image_config
        self.batch_sizes = sorted(set(batch_sizes))
        self._predict = predict
        self._tiling = tiling
        self._log = log
        self._compiled: set[int] = set()
        self._has_warned = False

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path,
        *,
        size: int | tuple[int, int] | None = None,
        conf: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        multi_label: bool | None = None,
        tta: bool | None = None,
        slices: str | int | None = None,
        overlap: float | None = None,
        dtype: str | None = None,
        batch_size: int = 8,
        log: Callable[[str], object] = print,
    ) -> Self:
        """Loads a detector from a run, a checkpoint, a .pth or .safetensors file, a name, or an exported file.

        A file that tools/export wrote as StableHLO is a complete detector, in which everything but batch_size and log
        is fixed: leave the other options out.

        Args:
          weights: a path, an address (hf://, https://, gs://, s3://), or a name such as yolox_s; what is not here is
            downloaded once.
          size: input height and width, multiples of 32, or one number for both; by default those of training.
          conf: score threshold, 0.25 by default.
          iou: NMS threshold, 0.45 by default: an object that overlaps a better one of its class by more is suppressed.
          max_detections: the largest number of objects per image, 300 by default.
          multi_label: report a box for each class that reaches `conf`, not only for its best one; off by default.
          tta: test-time augmentation: detect in four views of each image (as it is, mirrored, smaller, larger); off by
            default.
          slices: for small objects in large images: detect in overlapping tiles too, all of an image in one call with
            one NMS: "auto", rows x columns such as "2x3", or the longer side of a tile in pixels. Images go one at a
            time. Off by default.
          overlap: of neighboring tiles, as a share of a tile's side; 0.2 by default.
          dtype: compute dtype: float32, bfloat16, float16 or auto, the default: the one that the device is built for.
          batch_size: images per batch when a list is given.
          log: called with network and input size, before work that takes long, and with a warning if tiles are larger
            than asked for; `lambda text: None` silences it.

        Raises:
          UserError: there are no such weights, they cannot be used, or an option is out of range.
        """
        options = {"size": size, "dtype": dtype, "conf": conf, "iou": iou, "max_detections": max_detections}
        options |= {"multi_label": multi_label, "tta": tta, "overlap": overlap}
        options |= {"slices": None if slices is None else str(slices)}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        local = download.local_file(str(weights), log)
        if exported_file.is_exported(local):
            return cls._from_exported(local, given, batch_size, log)
        if runtime := {".onnx": "ONNX Runtime", ".tflite": "LiteRT"}.get(Path(local).suffix):
            raise UserError(
                f"{weights} is a file for {runtime}",
                "give the weights that it was exported from, or export them with --format=stablehlo",
            )
        from yolox_jax.inference import pretrained  # here, since an exported file works without the network

        loaded = pretrained.load(str(weights), given.pop("dtype", "auto"))
        size_hw = check_size(given.pop("size", loaded.size_hw))
        log(loaded.describe(size_hw))
        config = pretrained.detector_config(**given)
        predict = pretrained.make_detect(loaded, config)
        return cls(predict, loaded.class_names, size_hw, (1, batch_size), log, loaded.image_config, config.tiling)

    @classmethod
    def _from_exported(
        cls, path: str | Path, given: dict[str, Any], batch_size: int, log: Callable[[str], object]
    ) -> Self:
        if given:
            raise UserError(
                f"{', '.join(given)} cannot be changed: {path} was exported with its own",
                "leave these options out, or export again with other ones",
            )
        program = stablehlo.Exported.read(path)
        batch_sizes = (1, batch_size) if program.batch is None else (program.batch,)
        image_config = ImageConfig(sixteen_bit=program.sixteen_bit)
        fixed = program.class_names, program.size_hw, batch_sizes, log, image_config, program.tiling
        return cls(program.predict, *fixed)

    @overload
    def __call__(self, images: ImageInput) -> ImageDetections: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Sequence[ImageInput]) -> list[ImageDetections]: ...
    def __call__(self, images: ImageInput | Sequence[ImageInput]) -> ImageDetections | list[ImageDetections]:
        """Detects in an image (an RGB array [h, w, 3] uint8, a PIL image or a path) or in each image of a list.

        Raises:
          ImageError: a file cannot be read.
          UserError: one of the objects is not an image.
        """
        if isinstance(images, list | tuple) and len(images) != 1:
            most = self.batch_sizes[-1]
            # Files are read batch by batch, so that a long list of paths does not fill the memory.
            batches = (
                [as_bgr(image, self.image_config) for image in images[i : i + most]]
                for i in range(0, len(images), most)
            )
            return [found for batch in batches for found in self.detect_bgr(batch, most)]
        if isinstance(images, list | tuple):
            return self.detect_bgr([as_bgr(images[0], self.image_config)])
        return self.detect_bgr([as_bgr(cast(ImageInput, images), self.image_config)])[0]

    def detect_bgr(self, images: Sequence[np.ndarray], batch_size: int | None = None) -> list[ImageDetections]:
        """Detects in BGR arrays [h, w, 3] uint8, OpenCV's channel order: at most as many as the largest batch size.

        `batch_size` chooses the program, by default the smallest that takes all images. Callers that cut one long list
        into parts should give it, so that a shorter last part does not compile another program.
        """
        if self._tiling:
            return [self._detect_in_tiles(image, self._tiling) for image in images]
        if batch_size is None:
            batch_size = next(size for size in self.batch_sizes if size >= len(images))
        canvas_BHW3 = np.full((batch_size, *self.size_hw, 3), PAD_VALUE, np.uint8)
        ratios = []
        for row, image in enumerate(images):
            canvas_BHW3[row], ratio = letterbox(image, self.size_hw)
            ratios.append(ratio)
        self._note_compilation(batch_size, "one image" if batch_size == 1 else f"batches of {batch_size} images")
        found = self._predict(canvas_BHW3)
        return [
            from_input_pixels(found, row, ratio, image.shape[:2], self.class_names)
            for row, (image, ratio) in enumerate(zip(images, ratios, strict=True))
        ]

    def _detect_in_tiles(self, image: np.ndarray, tiling: Tiling) -> ImageDetections:
        """Detects in all tiles of a BGR array at once."""
        image_hw = image.shape[0], image.shape[1]
        if not self._has_warned and (warning := tiling.warning(image_hw, self.size_hw)):
            self._log(warning)
            self._has_warned = True
        tiles = tiling.cut(image, self.size_hw)
        self._note_compilation(len(tiles.mask), f"up to {len(tiles.mask)} tiles")
        found = self._predict(jax.tree.map(lambda x: x[None], tiles))
        return from_input_pixels(found, 0, 1.0, image_hw, self.class_names)

    def _note_compilation(self, key: int, what: str) -> None:
        """Logs the first use of a program."""
        if key not in self._compiled:
            height, width = self.size_hw
            self._log(f"compiling for {what} at {height}x{width}, once for images of every size")
            self._compiled.add(key)
