"""Detects objects in files and webcams one after the other, and writes annotated copies."""

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from yolox_jax.cli.terminal import print_progress
from yolox_jax.inference.detections import ImageDetections
from yolox_jax.inference.detector import Detector
from yolox_jax.tools.predict.media import Media, MediaError, Video, VideoWriter, find, read_image
from yolox_jax.visualize import sheets

_T = TypeVar("_T")


class Prediction:
    """Detects objects in inputs one by one, writes annotated copies to a folder, and collects the detections."""

    def __init__(self, detector: Detector, output: Path, max_frames: int | None = None):
        self.entries: list[dict[str, Any]] = []
        self.unreadable: list[MediaError] = []
        self._detector = detector
        self._output = output
        self._max_frames = max_frames
        self._taken: set[Path] = set()  # absolute paths of all inputs and outputs
        self._batch_size = detector.batch_sizes[-1]

    def run(self, named: Sequence[str]) -> None:
        """Processes the inputs in their order, images in batches. Reports and skips those that cannot be read."""
        media, errors = find(named)
        for error in errors:
            self._skip(error)
        self._taken |= {each.path.resolve() for each in media}
        num_done = 0
        # One batch size for all, so that the last few images of a folder do not compile another program.
        self._batch_size = self._detector.batch_sizes[0 if len(media) == 1 else -1]
        for kind, group in itertools.groupby(media, key=lambda each: each.kind):
            if kind == "image":
                for batch in _batches(group, self._batch_size):
                    self._images(batch)
                    num_done += len(batch)
                    print_progress(num_done, len(media), "detected in", "files")
            else:
                for each in group:
                    self._video(each)
                    num_done += 1
                    print_progress(num_done, len(media), "detected in", "files")

    def _skip(self, error: MediaError) -> None:
        print(f"error: {error}", file=sys.stderr)
        self.unreadable.append(error)

    def as_json(self) -> dict[str, Any]:
        """Returns the content of predictions.json: class names, detections per image or frame, unreadable inputs."""
        return {
            "class_names": list(self._detector.class_names),
            "images": self.entries,
            "unreadable": [str(error) for error in self.unreadable],
        }

    def _images(self, batch: Sequence[Media]) -> None:
        read: list[tuple[Media, np.ndarray]] = []
        for each in batch:
            try:
                read.append((each, read_image(each, self._detector.image_config)))
            except MediaError as error:
                self._skip(error)
        if not read:
            return
        found = self._detector.detect_bgr([image for _, image in read], self._batch_size)
        for (each, image), in_image in zip(read, found, strict=True):
            sheets.write_picture(self._free_path(each.path.with_suffix(".jpg").name), in_image.draw_bgr(image))
            self.entries.append(_entry(each, image, in_image))

    def _video(self, media: Media) -> None:
        try:
            video = Video(media)
        except MediaError as error:
            return self._skip(error)
        # A frame of a webcam does not wait for others to fill a batch.
        batch_size = self._detector.batch_sizes[0 if media.kind == "webcam" else -1]
        stem = f"webcam{media.path}" if media.kind == "webcam" else media.path.stem
        writer = VideoWriter(self._free_path(f"{stem}.mp4"), video.frames_per_second)
        num_all = min(filter(None, (video.num_frames, self._max_frames)), default=None)
        num_done = 0
        with contextlib.closing(video), contextlib.closing(writer):
            try:
                for frames in _batches(itertools.islice(video, self._max_frames), batch_size):
                    for frame, found in zip(frames, self._detector.detect_bgr(frames, batch_size), strict=True):
                        writer.write(found.draw_bgr(frame))
                        self.entries.append({**_entry(media, frame, found), "frame": num_done})
                        num_done += 1
                    print_progress(num_done, num_all, f"{media.name}: detected in", "frames")
                if num_done != self._max_frames:
                    video.check_complete()
            except MediaError as error:
                self._skip(error)
            except KeyboardInterrupt:
                if media.kind != "webcam":
                    raise
        print(f"{media.name}: {num_done} frames")

    def _free_path(self, name: str) -> Path:
        """Returns an unused path in the output folder: inputs may have equal names, or lie in that folder."""
        path = self._output / name
        for number in itertools.count(2):
            if path.resolve() not in self._taken:
                break
            path = self._output / f"{Path(name).stem}-{number}{Path(name).suffix}"
        self._taken.add(path.resolve())
        return path


def _entry(media: Media, image_HW3: np.ndarray, found: ImageDetections) -> dict[str, Any]:
    height, width = image_HW3.shape[:2]
    return {"file": media.name, "width": width, "height": height, "detections": found.as_dicts()}


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
