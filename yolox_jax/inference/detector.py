"""Detect in pictures: Detector.from_pretrained("yolox_s")("street.jpg")."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, cast, overload

import numpy as np

from yolox_jax.augment.geometry import PAD_VALUE, letterbox
from yolox_jax.inference.detections import ImageDetections, from_input_pixels
from yolox_jax.inference.export import stablehlo
from yolox_jax.inference.inputs import ImageInput, as_bgr
from yolox_jax.types import Detections


class Detector:
    """Finds objects in images of any size, each letterboxed to the one input size of the network.

    So one program serves every image, and another every list: lists are cut into batches of a fixed size, and the last
    is filled up. Each is compiled when it is first needed.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray], Detections],
        class_names: tuple[str, ...],
        size_hw: tuple[int, int],
        batch_sizes: Sequence[int] = (1, 8),
        log: Callable[[str], object] = print,
    ):
        """A detector from its parts; most often `from_pretrained` finds them.

        Args:
          predict: images [B, H, W, 3] uint8 BGR to Detections in their pixels, as numpy arrays.
          class_names: in the order of the labels.
          size_hw: H and W.
          batch_sizes: the values of B.
          log: told before `predict` meets one of them for the first time.
        """
        self.class_names = class_names
        self.size_hw = size_hw
        self.batch_sizes = sorted(set(batch_sizes))
        self._predict = predict
        self._log = log
        self._compiled: set[int] = set()

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
        dtype: str | None = None,
        batch_size: int = 8,
        log: Callable[[str], object] = print,
    ) -> Self:
        """A detector with the weights of a run, a checkpoint or a .pth file, or with official ones, by name.

        A file that tools/export wrote as StableHLO is a whole detector: what is None below is fixed in it.

        Args:
          weights: a path, or a name such as yolox_s, which is downloaded once.
          size: height and width of the network's input, or one number for both, multiples of 32; by default the training's.
          conf: the least score of an object; 0.25 by default.
          iou: an object that overlaps a better one of its class by more than this is left out; 0.45 by default.
          max_detections: objects an image; 300 by default.
          multi_label: an object may have several classes.
          tta: look at each image four times, mirrored, smaller and larger too.
          dtype: of the computation: float32, bfloat16, or by default bfloat16 on GPU and TPU, float32 elsewhere.
          batch_size: images at a time, where a list is given.
          log: is told what takes long; `lambda text: None` for silence.
        Raises:
          ValueError, OSError: nothing is there, or nothing of this kind; the message says what to do.
        """
        options: dict[str, Any] = {
            "conf": conf,
            "iou": iou,
            "max_detections": max_detections,
            "multi_label": multi_label,
            "tta": tta,
        }
        given = {name: value for name, value in options.items() if value is not None}
        if stablehlo.is_exported(weights):
            fixed = [*given, *(name for name, value in (("size", size), ("dtype", dtype)) if value is not None)]
            if fixed:
                raise ValueError(
                    f"{weights} was exported with its own {', '.join(fixed)}: leave that out, or export again"
                )
            program = stablehlo.Exported.read(weights)
            batch_sizes = (1, batch_size) if program.batch is None else (program.batch,)
            return cls(program.predict, program.class_names, program.size_hw, batch_sizes, log)

        if Path(weights).suffix == ".onnx":
            raise ValueError(f"{weights} is for ONNX Runtime: give what it was exported from, or --format=stablehlo")

        # Here, because an exported file needs nothing of them.
        from yolox_jax.detection.anchors import check_size
        from yolox_jax.inference import pretrained

        loaded = pretrained.load(str(weights), dtype or "auto")
        predict = pretrained.make_predict(loaded, pretrained.detector_config(**given))
        size_hw = (size, size) if isinstance(size, int) else size
        size_hw = loaded.size_hw if size_hw is None else check_size(size_hw)
        return cls(predict, loaded.class_names, size_hw, (1, batch_size), log)

    @overload
    def __call__(self, images: ImageInput) -> ImageDetections: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Sequence[ImageInput]) -> list[ImageDetections]: ...
    def __call__(self, images: ImageInput | Sequence[ImageInput]) -> ImageDetections | list[ImageDetections]:
        """What is in an image: an RGB array [h, w, 3] uint8, a PIL image or a path. Of a list, a list.

        Raises:
          ImageError: a file cannot be read. Names it.
          ValueError: something is no such image.
        """
        if isinstance(images, list | tuple) and len(images) != 1:
            most = self.batch_sizes[-1]
            # Read and detected batch by batch: a long list of paths does not fill the memory.
            batches = ([as_bgr(image) for image in images[i : i + most]] for i in range(0, len(images), most))
            return [found for batch in batches for found in self.detect_bgr(batch, most)]
        if isinstance(images, list | tuple):
            return self.detect_bgr([as_bgr(images[0])])
        return self.detect_bgr([as_bgr(cast(ImageInput, images))])[0]

    def detect_bgr(self, images: Sequence[np.ndarray], batch_size: int | None = None) -> list[ImageDetections]:
        """The same for BGR arrays, OpenCV's order, as many as the largest batch at most.

        `batch_size` is the program's; by default the smallest that takes them. Parts of one list had better use one.
        """
        if batch_size is None:
            batch_size = next(size for size in self.batch_sizes if size >= len(images))
        canvas_BHW3 = np.full((batch_size, *self.size_hw, 3), PAD_VALUE, np.uint8)
        ratios = []
        for row, image in enumerate(images):
            canvas_BHW3[row], ratio = letterbox(image, self.size_hw)
            ratios.append(ratio)
        if batch_size not in self._compiled:
            what = "one image" if batch_size == 1 else f"batches of {batch_size} images"
            height, width = self.size_hw
            self._log(f"compiling for {what} at {height}x{width}, once; images of all sizes are fast from then on")
            self._compiled.add(batch_size)
        found = self._predict(canvas_BHW3)
        return [
            from_input_pixels(found, row, ratio, image.shape[:2], self.class_names)
            for row, (image, ratio) in enumerate(zip(images, ratios, strict=True))
        ]
