"""Runs on the host: makes a picture gray, blurs it and adds JPEG's artifacts, with given parameters."""

import dataclasses

import cv2
import numpy as np

from yolox_jax.augment import ranges


@dataclasses.dataclass(frozen=True)
class QualityConfig:
    """How often and how much pictures lose color and sharpness. configs/base.py has the values."""

    gray_prob: float
    blur_prob: float
    blur_sigma: tuple[float, float]  # of a Gaussian, in input pixels
    jpeg_prob: float
    jpeg_quality: tuple[int, int]  # of libjpeg, 1 to 100

    def __post_init__(self) -> None:
        ranges.check_probs({"gray_prob": self.gray_prob, "blur.prob": self.blur_prob, "jpeg.prob": self.jpeg_prob})
        ranges.check_range("blur.sigma", self.blur_sigma, "number of pixels", most=100)
        ranges.check_range("jpeg.quality", self.jpeg_quality, "quality", most=100)

    @property
    def is_on(self) -> bool:
        return max(self.gray_prob, self.blur_prob, self.jpeg_prob) > 0

    def color_only(self) -> "QualityConfig":
        """Returns what the no-aug epochs keep."""
        return dataclasses.replace(self, blur_prob=0.0, jpeg_prob=0.0)


@dataclasses.dataclass(frozen=True)
class QualityParameters:
    """The random parameters of one picture."""

    gray: bool
    blur_sigma: float | None
    jpeg_quality: int | None


def degrade(image: np.ndarray, parameters: QualityParameters) -> np.ndarray:
    """Applies gray, blur and JPEG to an image [h, w, 3], in this order, as a camera does; boxes stay where they are."""
    if parameters.gray:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if parameters.blur_sigma is not None:
        image = cv2.GaussianBlur(image, (0, 0), parameters.blur_sigma)
    if parameters.jpeg_quality is not None:
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, parameters.jpeg_quality])
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        assert decoded is not None  # it was encoded just now
        image = decoded
    return image


def without_tint(hsv_shift: np.ndarray, multiplies: bool) -> np.ndarray:
    """Returns a color shift [3] without its hue and saturation: a gray picture has neither, and gets none."""
    neutral = 1.0 if multiplies else 0.0
    return np.array([neutral, neutral, hsv_shift[2]], np.float32)
