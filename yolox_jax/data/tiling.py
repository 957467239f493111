"""Cuts an image into overlapping tiles of the network's input size, for small objects in large images.

The whole image, letterboxed, is always the first tile: it shows the objects that are larger than a tile. The number of
tiles is padded to one of a few counts, so that a handful of compiled programs serves images of every size.
"""

import dataclasses
import math
import re

import numpy as np

from yolox_jax.augment.geometry import PAD_VALUE, fit_ratio, letterbox
from yolox_jax.errors import UserError
from yolox_jax.types import Tiles

COUNTS = (1, 3, 5, 7, 10, 13, 17, 25, 37)  # of tiles with the whole image; each is a program, compiled at its first use
_MOST = COUNTS[-1] - 1  # tiles besides the whole image
_NEARLY = 0.8  # of its scale: an image that the network sees so is not cut
_GROWTH = 1.02  # of the tiles of an image that would need more


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images are cut.

    With "auto", tiles have the network's input size at the scale of the image, and an image that the network sees at
    that scale already, or nearly, is not cut. "RxC" is R rows and C columns whatever the image; a number is the longer
    side of a tile in pixels of the image. Tiles of an image that would need more than 36 grow until 36 suffice.
    """

    slices: str
    overlap: float  # of neighboring tiles, as a share of a tile's side

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 0.5:
            raise UserError(f"overlap is {self.overlap}", "give a share of a tile's side from 0 to 0.5")
        if self._grid and not 2 <= math.prod(self._grid) <= _MOST:
            raise UserError(f"slices is {self.slices}", f"give 2 to {_MOST} tiles: 2x3 is two rows and three columns")
        if not self._grid and self.slices != "auto" and not (self.slices.isdecimal() and int(self.slices) >= 32):
            raise UserError(
                f"slices is {self.slices!r}", "give auto, rows and columns such as 2x3, or a tile's pixels, 32 or more"
            )

    @property
    def _grid(self) -> tuple[int, int] | None:
        match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", self.slices)
        return (int(match[1]), int(match[2])) if match else None

    def regions(self, image_hw: tuple[int, int], size_hw: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """Returns (x1, y1, x2, y2) of each tile in pixels of the image, the whole image first."""
        whole = (0, 0, image_hw[1], image_hw[0])
        if self._grid:
            spans = [
                _spans(side, self._side(side, parts), parts) for side, parts in zip(image_hw, self._grid, strict=True)
            ]
        elif self.slices == "auto" and fit_ratio(image_hw, size_hw) >= _NEARLY:
            return [whole]
        else:
            tile_hw = self._growing(image_hw, self._asked(size_hw))
            counts = self._counts(image_hw, tile_hw)
            spans = [_spans(*each) for each in zip(image_hw, map(math.ceil, tile_hw), counts, strict=True)]
        tiles = [(x1, y1, x2, y2) for y1, y2 in spans[0] for x1, x2 in spans[1]]
        return list(dict.fromkeys([whole, *tiles]))  # each once: of one row of pixels, two rows of tiles are the same

    def count(self, image_hw: tuple[int, int], size_hw: tuple[int, int]) -> int:
        """Returns the number of tiles of an image, padded to one of COUNTS."""
        num_tiles = len(self.regions(image_hw, size_hw))
        return next(count for count in COUNTS if count >= num_tiles)

    def warning(self, image_hw: tuple[int, int], size_hw: tuple[int, int]) -> str | None:
        """Returns a line on an image whose tiles are larger than asked for; None if they are not."""
        if self._grid:
            return None
        asked_hw = self._asked(size_hw)
        if self._growing(image_hw, asked_hw) == asked_hw:
            return None
        x1, y1, x2, y2 = self.regions(image_hw, size_hw)[1]  # the first is the whole image
        image, asked, taken = (f"{math.ceil(h)}x{math.ceil(w)}" for h, w in (image_hw, asked_hw, (y2 - y1, x2 - x1)))
        return (
            f"warning: an image of {image} would need more than {_MOST} tiles of {asked} pixels, and gets tiles of "
            f"{taken}, as every such image does"
        )

    def cut(self, image: np.ndarray, size_hw: tuple[int, int], count: int | None = None) -> Tiles:
        """Cuts an image [h, w, 3] into `count` tiles, by default its own number; as one row of Tiles, without B."""
        image_hw = image.shape[0], image.shape[1]
        regions = self.regions(image_hw, size_hw)
        tiles = empty(size_hw, count or self.count(image_hw, size_hw))
        for row, (x1, y1, x2, y2) in enumerate(regions):
            tiles.images[row], ratio = letterbox(image[y1:y2, x1:x2], size_hw)
            tiles.origins[row], tiles.ratios[row], tiles.mask[row] = (x1, y1), ratio, True
            inner = (x1 > 0, y1 > 0, x2 < image_hw[1], y2 < image_hw[0])
            tiles.edges[row] = np.where(inner, (x1, y1, x2, y2), tiles.edges[row])
        return tiles

    def _asked(self, size_hw: tuple[int, int]) -> tuple[float, float]:
        """Returns height and width of a tile in pixels of the image, as they were asked for."""
        scale = 1.0 if self.slices == "auto" else int(self.slices) / max(size_hw)
        return scale * size_hw[0], scale * size_hw[1]

    def _side(self, side: int, parts: int) -> int:
        return math.ceil(side / (parts - self.overlap * (parts - 1)))

    def _counts(self, image_hw: tuple[int, int], tile_hw: tuple[float, float]) -> tuple[int, int]:
        """Returns the rows and columns of tiles that cover an image with at least the overlap."""

        def parts(side: int, tile: float) -> int:
            return 1 + max(0, math.ceil((side - tile) / (tile * (1 - self.overlap))))

        return parts(image_hw[0], tile_hw[0]), parts(image_hw[1], tile_hw[1])

    def _growing(self, image_hw: tuple[int, int], tile_hw: tuple[float, float]) -> tuple[float, float]:
        while math.prod(self._counts(image_hw, tile_hw)) > _MOST:
            tile_hw = tile_hw[0] * _GROWTH, tile_hw[1] * _GROWTH
        return tile_hw


def tiling_of(slices: str, overlap: float) -> Tiling | None:
    """Returns the tiling of these options; None if `slices` is empty: images are not cut."""
    return Tiling(slices, overlap) if slices else None


def empty(size_hw: tuple[int, int], count: int) -> Tiles:
    """Returns one row of Tiles, without B, that is all padding."""
    return Tiles(
        images=np.full((count, *size_hw, 3), PAD_VALUE, np.uint8),
        origins=np.zeros((count, 2), np.float32),
        ratios=np.ones(count, np.float32),
        edges=np.tile(np.array([-np.inf, -np.inf, np.inf, np.inf], np.float32), (count, 1)),
        mask=np.zeros(count, np.bool_),
    )


def _spans(side: int, tile: int, parts: int) -> list[tuple[int, int]]:
    """Places `parts` spans of `tile` pixels evenly over a side; the first begins and the last ends with it."""
    tile = min(tile, side)
    starts = np.rint(np.linspace(0, side - tile, parts)).astype(int).tolist()
    return [(start, start + tile) for start in starts]
