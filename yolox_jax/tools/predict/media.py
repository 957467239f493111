"""Reads the inputs of predict: image files, folders, patterns, videos and webcams; and writes videos."""

import dataclasses
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from yolox_jax import storage
from yolox_jax.data import images
from yolox_jax.data.images import ImageConfig
from yolox_jax.errors import UserError

# Pictures that OpenCV does not read: in a folder, they would be passed over without a word.
_UNKNOWN = {".heic", ".heif", ".jxl", ".psd", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raw", ".eps"}
_VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".gif"}


@dataclasses.dataclass(frozen=True)
class Media:
    """One input; nothing of it has been read yet."""

    name: str  # as messages show it
    kind: str  # "image", "video" or "webcam"
    path: Path  # for a webcam its number


class MediaError(UserError):
    """An input does not exist or cannot be read; predict reports it and continues with the next."""


def find(named: Sequence[str]) -> tuple[list[Media], list[MediaError]]:
    """Finds the inputs that the arguments name, in their order.

    A number is a webcam, unless a file has that name. A folder stands for the images and videos directly in it; of
    several links to a file, one counts. Returns an error for each argument that names nothing or an address in a
    bucket, and for each picture in a folder that is of an unknown kind.
    """
    found: list[Media] = []
    errors: list[MediaError] = []
    for each in named:
        try:
            path = storage.local_path(each).expanduser()
        except UserError as error:
            errors.append(MediaError(error.what, error.advice))
            continue
        if path.is_file():
            found.append(_file(path))
        elif each.isdigit() and not path.exists():
            found.append(Media(f"webcam {each}", "webcam", path))
        else:
            # The name of a folder is not a pattern, even if it has brackets.
            pattern = f"{glob.escape(str(path))}/*" if path.is_dir() else str(path)
            there = [match for match in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(match)]
            first = {os.path.realpath(match): match for match in reversed(there)}  # a link may lead to a folder above
            matches = [Path(match) for match in there if first[os.path.realpath(match)] == match]
            wanted = [match for match in matches if match.suffix.lower() in images.SUFFIXES | _VIDEOS]
            unknown = [match for match in matches if match.suffix.lower() in _UNKNOWN]
            found += map(_file, wanted)
            errors += [MediaError(f"{match} is of a kind that is not read", "convert it to JPEG") for match in unknown]
            if not wanted and not unknown:
                errors.append(_nothing_found(each, path))
    return found, errors


def _nothing_found(named: str, path: Path) -> MediaError:
    if path.is_dir():
        return MediaError(f"no image or video is in {named}", f'to include its subfolders, give "{named}/**/*"')
    if glob.has_magic(named):
        return MediaError(f"no image or video matches {named}", "check the pattern, and quote it")
    return MediaError(f"there is no file or folder {named}", "check the path")


def _file(path: Path) -> Media:
    return Media(str(path), "video" if path.suffix.lower() in _VIDEOS else "image", path)


class Video:
    """An open video file or webcam. Iterating yields its frames, [h, w, 3] uint8 BGR."""

    def __init__(self, media: Media):
        self._media = media
        self._capture = cv2.VideoCapture(int(media.path.name) if media.kind == "webcam" else str(media.path))
        if not self._capture.isOpened():
            is_webcam = media.kind == "webcam"
            advice = "check that it is connected and not in use" if is_webcam else "convert it to an mp4 with H.264"
            raise MediaError(f"{media.name} cannot be opened{'' if is_webcam else ' as a video'}", advice)
        self.frames_per_second = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.num_frames = count if media.kind == "video" and count > 0 else None  # by the file's header
        self.num_read = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            more, frame = self._capture.read()
            if not more:
                return
            self.num_read += 1
            yield frame

    def check_complete(self) -> None:
        """Raises a MediaError if far fewer frames were read than the file's header announces: the file is truncated."""
        # Some intact files announce a frame or two more than they have.
        if self.num_read == 0 or (self.num_frames is not None and self.num_read < 0.9 * self.num_frames):
            frames = f"{self.num_read} of {self.num_frames} frames" if self.num_frames else f"{self.num_read} frames"
            raise MediaError(f"{self._media.name} ends after {frames}", "copy the file again")

    def close(self) -> None:
        self._capture.release()


class VideoWriter:
    """Writes frames of one size to an mp4."""

    def __init__(self, path: Path, frames_per_second: float):
        self._path = path
        self._frames_per_second = frames_per_second
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame_HW3: np.ndarray) -> None:
        """Appends a BGR frame. Raises a UserError if the file cannot be written."""
        if self._writer is None:
            size = frame_HW3.shape[1], frame_HW3.shape[0]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._frames_per_second, size)
            if not self._writer.isOpened():
                raise UserError(
                    f"the video {self._path} cannot be written", "choose another --output, or free some space"
                )
        self._writer.write(frame_HW3)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


def read_image(media: Media, config: ImageConfig = ImageConfig()) -> np.ndarray:
    """Reads an image as [h, w, 3] uint8 BGR. Raises a MediaError if it cannot be read."""
    try:
        return images.read(media.path, config)
    except UserError as error:
        raise MediaError(error.what, error.advice) from error
