"""Detects objects in files and webcams one after the other, and writes annotated copies."""

import contextlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from yolox_jax.cli.progress import print_progress
from yolox_jax.data.prefetch import Shard
from yolox_jax.inference.detections import ImageDetections
from yolox_jax.inference.detector import Detector
from yolox_jax.tools.predict.extras import Extras
from yolox_jax.tools.predict.media import Media, MediaError, Video, VideoWriter, find, read_image
from yolox_jax.visualize import sheets

_T = TypeVar("_T")


class Prediction:
    """Detects objects in inputs one by one, writes annotated copies to a folder, and collects the detections.

    Of several processes each takes every n-th input; `combine` brings their results together.
    """

    def __init__(
        self,
        detector: Detector,
        output: Path,
        max_frames: int | None = None,
        shard: Shard = Shard(),
        extras: Extras | None = None,
    ):
        self._entries: list[tuple[int, dict[str, Any]]] = []  # with the number of the input, in the order of all
        self._unreadable: list[tuple[int, str]] = []
        self._detector = detector
        self._output = output
        self._max_frames = max_frames
        self._shard = shard
        self._extras = extras or Extras(output)
        self._batch_size = detector.batch_sizes[-1]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The detections of each image or frame, in the order of the inputs."""
        return [entry for _, entry in self._entries]

    @property
    def unreadable(self) -> list[str]:
        """What is wrong with each input that cannot be read."""
        return [error for _, error in self._unreadable]

    def run(self, named: Sequence[str]) -> None:
        """Processes the inputs in their order, images in batches. Reports and skips those that cannot be read."""
        media, errors = find(named)
        if self._shard.process_index == 0:
            for error in errors:
                self._skip(-1, error)
        inputs = list(enumerate(zip(media, self._paths_of_copies(media), strict=True)))
        inputs = inputs[self._shard.process_index :: self._shard.process_count]
        num_done = 0
        unit = "files" if self._shard.process_count == 1 else "files of this process"
        # One batch size for all, so that the last few images of a folder do not compile another program.
        self._batch_size = self._detector.batch_sizes[0 if len(media) == 1 else -1]
        for kind, group in itertools.groupby(inputs, key=lambda each: each[1][0].kind):
            if kind == "image":
                for batch in _batches(group, self._batch_size):
                    self._images(batch)
                    num_done += len(batch)
                    print_progress(num_done, len(inputs), "detected in", unit)
            else:
                for number, (each, copy) in group:
                    self._video(number, each, copy)
                    num_done += 1
                    print_progress(num_done, len(inputs), "detected in", unit)

    def _skip(self, number: int, error: MediaError) -> None:
        print(f"error: {error}", file=sys.stderr)
        self._unreadable.append((number, str(error)))

    def as_part(self) -> bytes:
        """Returns the results of this process, for `combine`."""
        return json.dumps([self._entries, self._unreadable]).encode()

    def combine(self, parts: Sequence[bytes]) -> None:
        """Takes the results of all processes in place of this one's, in the order of the inputs."""
        entries, unreadable = zip(*map(json.loads, parts), strict=True)
        self._entries = sorted(itertools.chain.from_iterable(entries), key=lambda each: each[0])
        self._unreadable = sorted(itertools.chain.from_iterable(unreadable), key=lambda each: each[0])

    def as_json(self) -> dict[str, Any]:
        """Returns the content of predictions.json: class names, detections per image or frame, unreadable inputs."""
        return {
            "class_names": list(self._detector.class_names),
            "images": self.entries,
            "unreadable": self.unreadable,
        }

    def _images(self, batch: Sequence[tuple[int, tuple[Media, Path]]]) -> None:
        read: list[tuple[int, Media, Path, np.ndarray]] = []
        for number, (each, copy) in batch:
            try:
                read.append((number, each, copy, read_image(each, self._detector.image_config)))
            except MediaError as error:
                self._skip(number, error)
        if not read:
            return
        found = self._detector.detect_bgr([image for *_, image in read], self._batch_size)
        for (number, each, copy, image), in_image in zip(read, found, strict=True):
            sheets.write_picture(copy, in_image.draw_bgr(image))
            self._extras.write(copy.stem, image, in_image)
            self._entries.append((number, _entry(each, image, in_image)))

    def _video(self, number: int, media: Media, copy: Path) -> None:
        try:
            video = Video(media)
        except MediaError as error:
            return self._skip(number, error)
        # A frame of a webcam does not wait for others to fill a batch.
        batch_size = self._detector.batch_sizes[0 if media.kind == "webcam" else -1]
        writer = VideoWriter(copy, video.frames_per_second)
        num_all = min(filter(None, (video.num_frames, self._max_frames)), default=None)
        num_done = 0
        with contextlib.closing(video), contextlib.closing(writer):
            try:
                for frames in _batches(itertools.islice(video, self._max_frames), batch_size):
                    for frame, found in zip(frames, self._detector.detect_bgr(frames, batch_size), strict=True):
                        writer.write(found.draw_bgr(frame))
                        self._extras.write(f"{copy.stem}_{num_done:06}", frame, found)
                        self._entries.append((number, {**_entry(media, frame, found), "frame": num_done}))
                        num_done += 1
                    print_progress(num_done, num_all, f"{media.name}: detected in", "frames")
                if num_done != self._max_frames:
                    video.check_complete()
            except MediaError as error:
                self._skip(number, error)
            except KeyboardInterrupt:
                if media.kind != "webcam":
                    raise
        print(f"{media.name}: {num_done} frames")

    def _paths_of_copies(self, media: Sequence[Media]) -> list[Path]:
        """Returns a path in the output folder for each input: inputs may have equal names, or lie in that folder."""
        taken = {each.path.resolve() for each in media}
        paths = []
        for each in media:
            stem = f"webcam{each.path}" if each.kind == "webcam" else each.path.stem
            suffix = ".jpg" if each.kind == "image" else ".mp4"
            path = self._output / f"{stem}{suffix}"
            for number in itertools.count(2):
                if path.resolve() not in taken:
                    break
                path = self._output / f"{stem}-{number}{suffix}"
            taken.add(path.resolve())
            paths.append(path)
        return paths


def _entry(media: Media, image_HW3: np.ndarray, found: ImageDetections) -> dict[str, Any]:
    height, width = image_HW3.shape[:2]
    return {"file": media.name, "width": width, "height": height, "detections": found.as_dicts()}


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
