"""Decides whether a JPEG is decoded with its sides divided by 2, 4 or 8, and where its boxes lie then.

libjpeg computes only as many pixels of each 8×8 block as are asked for, which takes less time than all of them.
"""

import dataclasses

import numpy as np

from yolox_jax.data import image_header

_DIVISORS = (8, 4, 2)
# EXIF orientations in which the right or the lower side of the stored image becomes the left, or the upper, one.
_LEFT_WAS_FAR, _TOP_WAS_FAR = (2, 3, 6, 7), (3, 4, 7, 8)
_SWAPPED = (5, 6, 7, 8)  # orientations that exchange the sides


@dataclasses.dataclass(frozen=True)
class Reduction:
    """How a JPEG is reduced: each pixel is the mean of `divisor` rows and columns.

    They are counted from the stored image's upper left corner. If a side is not a multiple, the pixels at its other end
    are partly outside the whole image.
    """

    divisor: int
    whole_hw: tuple[int, int]  # upright
    orientation: int  # EXIF's: how the stored image was turned

    @property
    def reduced_hw(self) -> tuple[int, int]:
        """Rows and columns of the reduced image."""
        return -(-self.whole_hw[0] // self.divisor), -(-self.whole_hw[1] // self.divisor)

    def boxes(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Returns boxes [n, 4] in pixels of the whole image in those of the reduced one, as float32."""
        outside_y, outside_x = (
            reduced - whole / self.divisor for reduced, whole in zip(self.reduced_hw, self.whole_hw, strict=True)
        )
        left = outside_x if self.orientation in _LEFT_WAS_FAR else 0.0
        top = outside_y if self.orientation in _TOP_WAS_FAR else 0.0
        return boxes_xyxy / np.float32(self.divisor) + np.array([left, top, left, top], np.float32)


def reduction(data: bytes, fit_hw: tuple[int, int], ignore_orientation: bool) -> Reduction | None:
    """Returns the strongest reduction of a JPEG that still has to be shrunk, or is just right, to fit into `fit_hw`.

    None if the image is less than twice as large, no JPEG, or turned in a way that is not certain.
    """
    size_wh = image_header.size_wh(data) if data.startswith(image_header.JPEG_START) else None
    if size_wh is None:
        return None
    orientation = 1 if ignore_orientation else image_header.jpeg_orientation(data)
    if orientation is None:
        return None
    height, width = size_wh if orientation in _SWAPPED else size_wh[::-1]
    for divisor in _DIVISORS:
        if height >= divisor * fit_hw[0] or width >= divisor * fit_hw[1]:
            return Reduction(divisor, (height, width), orientation)
    return None
