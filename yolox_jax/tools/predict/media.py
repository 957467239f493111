"""What a user names to be looked at: image files, folders, globs, videos and webcams, as frames."""

import dataclasses
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from yolox_jax.data import images

_IMAGES = {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"}
_VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".gif"}


@dataclasses.dataclass(frozen=True)
class Media:
    """One thing to look at; nothing of it is read yet."""

    name: str  # as the user would say it
    kind: str  # "image", "video" or "webcam"
    path: Path  # for a webcam its number


class MediaError(ValueError):
    """Something named is not there or cannot be read. Says which, and why."""


def find(named: Sequence[str]) -> tuple[list[Media], list[MediaError]]:
    """What the arguments mean, in their order, and an error for each that means nothing.

    A number is a webcam, if no file is called so; a folder means the images and videos in it, not those in its folders.
    """
    found: list[Media] = []
    errors: list[MediaError] = []
    for each in named:
        path = Path(each).expanduser()
        if path.is_file():
            found.append(_file(path))
        elif each.isdigit() and not path.exists():
            found.append(Media(f"webcam {each}", "webcam", path))
        else:
            pattern = f"{glob.escape(str(path))}/*" if path.is_dir() else str(path)  # not the folder's own brackets
            matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
            wanted = [m for m in matches if m.is_file() and m.suffix.lower() in _IMAGES | _VIDEOS]
            found += map(_file, wanted)
            if not wanted:
                what = "a folder without images and videos" if path.is_dir() else "no file, folder or pattern of files"
                errors.append(MediaError(f"{each} is {what}"))
    return found, errors


def _file(path: Path) -> Media:
    return Media(str(path), "video" if path.suffix.lower() in _VIDEOS else "image", path)


class Video:
    """A video file or a webcam, opened; iterate for its frames [h, w, 3] uint8 BGR."""

    def __init__(self, media: Media):
        self._media = media
        self._capture = cv2.VideoCapture(int(media.path.name) if media.kind == "webcam" else str(media.path))
        if not self._capture.isOpened():
            why = "is it connected, and free?" if media.kind == "webcam" else "OpenCV knows no such video"
            raise MediaError(f"{media.name} cannot be opened: {why}")
        self.frames_per_second = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.num_frames = count if media.kind == "video" and count > 0 else None  # as the file says
        self.num_read = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            more, frame = self._capture.read()
            if not more:
                return
            self.num_read += 1
            yield frame

    def check_complete(self) -> None:
        """After the last frame: raises MediaError where there should be more, as in a file that was cut off."""
        # Some sound files announce a frame or two more than they have.
        if self.num_read == 0 or (self.num_frames is not None and self.num_read < 0.9 * self.num_frames):
            raise MediaError(f"{self._media.name} ends after {self.num_read} of {self.num_frames or 'its'} frames")

    def close(self) -> None:
        self._capture.release()


class VideoWriter:
    """Frames of one size -> an mp4."""

    def __init__(self, path: Path, frames_per_second: float):
        self._path = path
        self._frames_per_second = frames_per_second
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame_HW3: np.ndarray) -> None:
        """Adds a BGR frame; an OSError where it cannot be written."""
        if self._writer is None:
            size = frame_HW3.shape[1], frame_HW3.shape[0]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._frames_per_second, size)
            if not self._writer.isOpened():
                raise OSError(f"could not write the video {self._path}")
        self._writer.write(frame_HW3)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


def read_image(media: Media) -> np.ndarray:
    """[h, w, 3] uint8 BGR; a MediaError where it cannot be read."""
    try:
        return images.read(media.path)
    except (images.ImageError, OSError) as error:
        raise MediaError(str(error)) from error
