"""Detect in pictures: Detector.from_pretrained("yolox_s")("street.jpg")."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self, cast, overload

import numpy as np

from yolox_jax.data.geometry import PAD_VALUE, letterbox
from yolox_jax.inference.detections import ImageDetections, from_input_pixels
from yolox_jax.inference.images import ImageInput, as_bgr
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
        size: tuple[int, int] | None = None,
        conf: float = 0.25,
        iou: float = 0.45,
        max_detections: int = 300,
        dtype: str = "auto",
        batch_size: int = 8,
        log: Callable[[str], object] = print,
    ) -> Self:
        """A detector with the weights of a run, a checkpoint or a .pth file, or with official ones, by name.

        Args:
          weights: a path, or a name such as yolox_s, which is downloaded once.
          size: height and width of the network's input, multiples of 32; by default that of the training.
          conf: the least score of an object. The default and the next are those of the reference's demo.
          iou: an object that overlaps a better one of its class by more than this is left out.
          max_detections: objects an image.
          dtype: of the computation: float32, bfloat16, or auto, which is bfloat16 on GPU and TPU.
          batch_size: images at a time, where a list is given.
          log: is told what takes long; `lambda text: None` for silence.
        """
        # Here, so that `from yolox_jax import Detector` stays quick.
        from yolox_jax.detection.anchors import check_size
        from yolox_jax.evaluation.evaluate import EvalConfig
        from yolox_jax.inference import pretrained

        loaded = pretrained.load(str(weights), dtype)
        config = EvalConfig(conf, iou, max_detections, num_candidates=max(1000, max_detections))
        predict = pretrained.make_predict(loaded, config)
        size_hw = loaded.size_hw if size is None else check_size(size)
        return cls(predict, loaded.class_names, size_hw, (1, batch_size), log)

    # A str is also a sequence of str; it is the first of the two that then counts.
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
        if isinstance(images, list | tuple):
            return [found for batch in self._batches(images) for found in self.detect_bgr([as_bgr(i) for i in batch])]
        return self.detect_bgr([as_bgr(cast(ImageInput, images))])[0]

    def detect_bgr(self, images: Sequence[np.ndarray]) -> list[ImageDetections]:
        """The same for BGR arrays, OpenCV's order, as many as the largest batch at most."""
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

    def _batches(self, images: Sequence[ImageInput]) -> Iterator[Sequence[ImageInput]]:
        """Read and detected one after the other: a long list of paths does not fill the memory."""
        for start in range(0, len(images), self.batch_sizes[-1]):
            yield images[start : start + self.batch_sizes[-1]]
