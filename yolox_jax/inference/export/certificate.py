"""Certificate: test images and what the run detects in them, carried by an exported file and compared with it anywhere.

`make` runs the network on a few images. A writer stores `to_json` in its file, or at `path_beside` of it; `read` gives
it back, and `compare` runs the file (runtimes.py) on the same pixels. As JSON: `class_names`, `detect` (thresholds),
`bound`, and `images`: each has its pixels as a PNG in base64, which is the network's input, and its detections.
"""

import base64
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolox_jax import boxes
from yolox_jax.augment import geometry
from yolox_jax.data import images
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.errors import UserError
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.types import Detections
from yolox_jax.weights import strict_json
from yolox_jax.weights.strict_json import FieldError

Run = Callable[[np.ndarray], Detections]  # images [B, H, W, 3] uint8 BGR, letterboxed -> boxes in their pixels

_FORMAT_VERSION = 1
_NUM_IMAGES = 3
_MOST_CANDIDATES = 8  # images to choose from
_LONGEST_SIDE = 416  # pixels of a test image, whatever the input size: the certificate travels with every copy
_FEWER_LEVELS = np.uint8(0xE0)  # of generated images: without their noise, a PNG is a tenth as large
_SAME_OBJECT = 0.5  # IoU from which a detection of the same class is the expected one
_MOST_BYTES = 1 << 26  # of a certificate that is read


@dataclasses.dataclass(frozen=True)
class Bound:
    """The largest differences at which a file counts as finding what the run found."""

    box_pixels: float  # of a box's side, in pixels of the network's input
    score: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise UserError(f"the bound {field.name} is {value!r}", "give a number of 0 or more")


FLOAT32 = Bound(box_pixels=0.05, score=1e-4)  # another order of the same sums
SIXTEEN_BITS = Bound(box_pixels=12.0, score=0.2)  # bfloat16 keeps three digits: 6.5 and 0.12 for nano on photographs
INT8 = Bound(box_pixels=32.0, score=0.25)  # 256 steps: 13 and 0.08, or 25 and 0.14 if calibrated with two images


@dataclasses.dataclass(frozen=True)
class Found:
    """The objects of one image, best score first."""

    boxes_xyxy: np.ndarray  # [n, 4] float32, pixels of the network's input
    scores: np.ndarray  # [n] float32
    labels: np.ndarray  # [n] int32


@dataclasses.dataclass(frozen=True)
class TestImage:
    """A picture as the network takes it, or as it is cut into tiles, and what the run finds in it."""

    __test__ = False  # for pytest

    image_HW3: np.ndarray  # uint8 BGR, letterboxed
    found: Found


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What an exported file must find."""

    class_names: tuple[str, ...]
    detect: DetectConfig
    bound: Bound
    images: tuple[TestImage, ...]

    @property
    def num_detections(self) -> int:
        """The number of detections in all images."""
        return sum(len(each.found.scores) for each in self.images)

    def to_json(self) -> str:
        """Returns the certificate as text, which `read` takes."""
        return json.dumps(
            {
                "format_version": _FORMAT_VERSION,
                "class_names": self.class_names,
                "detect": dataclasses.asdict(self.detect),
                "bound": dataclasses.asdict(self.bound),
                "images": [_image_to_json(each) for each in self.images],
            }
        )


@dataclasses.dataclass(frozen=True)
class Difference:
    """How a file's detections differ from those of its certificate."""

    num_detections: int  # found by both
    box_pixels: float  # the largest difference of a coordinate
    score: float
    only_in_one: tuple[str, ...]  # detections that only the run or only the file finds, beyond the bound of the score

    def is_within(self, bound: Bound) -> bool:
        """Returns whether the file finds what the run found."""
        return not self.only_in_one and self.box_pixels <= bound.box_pixels and self.score <= bound.score

    def describe(self, certificate: Certificate, bound: Bound) -> str:
        """Returns a line with the largest differences, and one for each detection that only one has.

        A further line warns if the certificate has no detections.
        """
        largest = (
            f"{self.num_detections} of {certificate.num_detections} detections in {len(certificate.images)} test "
            f"images; largest difference of boxes {self.box_pixels:.2g} pixels (bound {bound.box_pixels:g}), "
            f"of scores {self.score:.2g} (bound {bound.score:g})"
        )
        nothing = "nothing is expected in the test images, which shows little: export again, with other --images"
        return "\n".join((largest, *([] if certificate.num_detections else [nothing]), *self.only_in_one))


def make(
    run: Run,
    class_names: tuple[str, ...],
    size_hw: tuple[int, int],
    detect: DetectConfig,
    bound: Bound,
    pictures: Iterable[np.ndarray] | None = None,
) -> Certificate:
    """Makes a certificate of what `run`, the run's own network, detects.

    Args:
      run: called with one image at a time.
      class_names: in the order of the labels.
      size_hw: H and W of the network's input.
      detect: the settings of `run`. If it cuts images, they are wider than the input, so that there are tiles to join.
      bound: what the file will be compared by: FLOAT32 if it computes as the run does.
      pictures: [h, w, 3] uint8 BGR; of the first few, those with the most detections are taken. Drawn shapes if None.
    """
    canvas_hw = (size_hw[0], size_hw[1] * 3 // 2) if detect.slices else size_hw
    limit_hw = min(canvas_hw[0], _LONGEST_SIDE), min(canvas_hw[1], _LONGEST_SIDE)
    if pictures is None:
        source = ShapesSource(_MOST_CANDIDATES, seed=0, max_side=max(64, *limit_hw))
        pictures = (source[index].image & _FEWER_LEVELS for index in range(len(source)))
    tests = []
    for picture in itertools.islice(pictures, _MOST_CANDIDATES):
        image_HW3 = geometry.pad(geometry.fit(picture, limit_hw), canvas_hw)
        tests.append(TestImage(image_HW3, _found(run(image_HW3[None]))))
    tests.sort(key=lambda each: -len(each.found.scores))  # stable: of equal ones the first
    return Certificate(class_names, detect, bound, tuple(tests[:_NUM_IMAGES]))


def read(text: str | bytes, name: str | Path) -> Certificate:
    """Reads what `to_json` wrote; `name` names the file in errors.

    Raises:
      UserError: it is damaged, or was written by another version.
    """
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > _MOST_BYTES:
            raise FieldError(f"has more than {_MOST_BYTES} bytes")
        fields = strict_json.parse(data)
        version = fields.pop("format_version", None) if isinstance(fields, dict) else None
        if version != _FORMAT_VERSION:
            raise FieldError(f"has format_version {strict_json.shown(version)}, not {_FORMAT_VERSION}")
        strict_json.check_names(fields, ["class_names", "detect", "bound", "images"])
        tests = tuple(_image_from_json(each, f"{name}: test image {i}") for i, each in enumerate(fields["images"]))
        detect, bound = DetectConfig(**fields["detect"]), Bound(**fields["bound"])
        names = tuple(map(str, fields["class_names"]))
        if not names or not tests or len({each.image_HW3.shape for each in tests}) != 1:
            raise FieldError("has no classes, no test images, or test images of several sizes")
        if any(each.found.labels.size and each.found.labels.max() >= len(names) for each in tests):
            raise FieldError(f"has more than its {len(names)} classes")
    except (ValueError, TypeError, KeyError) as error:  # UserError and FieldError are ValueErrors
        what = error.what if isinstance(error, UserError) else error
        raise UserError(f"the certificate of {name} cannot be read ({what})", "export the file again") from error
    return Certificate(names, detect, bound, tests)


def path_beside(path: str | Path) -> Path:
    """Returns the path of the certificate of a file whose format has no place for it."""
    return Path(f"{path}.certificate.json")


def compare(certificate: Certificate, run: Run, bound: Bound | None = None) -> Difference:
    """Runs a file on the test images, one at a time, and compares its detections with those of the certificate.

    A detection whose score is so near the threshold that the bound allows it to be on either side may be missing.
    `bound` is the certificate's own by default.
    """
    bound = bound or certificate.bound
    lowest = certificate.detect.conf + bound.score
    num_both, box_pixels, score, only_in_one = 0, 0.0, 0.0, []
    for number, test in enumerate(certificate.images, start=1):
        expected, found = test.found, _found(run(test.image_HW3[None]))
        pairs = _pair(expected, found)
        for i, j in pairs:
            box_pixels = max(box_pixels, float(abs(expected.boxes_xyxy[i] - found.boxes_xyxy[j]).max()))
            score = max(score, float(abs(expected.scores[i] - found.scores[j])))
        num_both += len(pairs)
        for here, of, in_pairs in (
            ("the run", expected, {i for i, _ in pairs}),
            ("the file", found, {j for _, j in pairs}),
        ):
            only_in_one += [
                f"only {here} finds {_shown(of, i, certificate.class_names)} in test image {number}"
                for i in range(len(of.scores))
                if i not in in_pairs and of.scores[i] > lowest
            ]
    return Difference(num_both, box_pixels, score, tuple(only_in_one))


def _found(detections: Detections) -> Found:
    """Takes the only image of a batch."""
    mask_D = np.asarray(detections.mask[0])
    arrays = (np.asarray(each[0])[mask_D] for each in (detections.boxes, detections.scores, detections.labels))
    return Found(*arrays)


def _pair(expected: Found, found: Found) -> list[tuple[int, int]]:
    """Pairs each expected detection, best first, with the one of its class that overlaps it most."""
    pairs: list[tuple[int, int]] = []
    free = set(range(len(found.scores)))
    intersection_NM, union_NM = boxes.pairwise_intersection_and_union(expected.boxes_xyxy, found.boxes_xyxy)
    for i, overlap_M in enumerate(intersection_NM / np.maximum(union_NM, 1e-9)):
        same_class = [j for j in free if found.labels[j] == expected.labels[i] and overlap_M[j] >= _SAME_OBJECT]
        if same_class:
            best = max(same_class, key=overlap_M.__getitem__)
            pairs.append((i, best))
            free.remove(best)
    return pairs


def _shown(found: Found, i: int, class_names: tuple[str, ...]) -> str:
    box = ", ".join(f"{side:.0f}" for side in found.boxes_xyxy[i])
    label = int(found.labels[i])
    name = class_names[label] if 0 <= label < len(class_names) else f"class {label}"
    return f"{name} {found.scores[i]:.3f} at ({box})"


def _image_to_json(test: TestImage) -> dict[str, Any]:
    _, png = cv2.imencode(".png", test.image_HW3)
    found = test.found
    return {
        "png": base64.b64encode(png.tobytes()).decode(),
        "detections": [
            {"label": int(label), "score": float(score), "box_xyxy": [float(side) for side in box]}
            for label, score, box in zip(found.labels, found.scores, found.boxes_xyxy, strict=True)
        ],
    }


def _image_from_json(fields: Any, name: str) -> TestImage:
    strict_json.check_names(fields, ["png", "detections"])
    image_HW3 = images.decode(base64.b64decode(fields["png"], validate=True), name)
    detections = fields["detections"]
    for each in detections:
        strict_json.check_names(each, ["label", "score", "box_xyxy"])
        strict_json.check_whole("label", each["label"], 0, 1 << 20)
    found = Found(
        np.array([each["box_xyxy"] for each in detections], np.float32).reshape(-1, 4),
        np.array([each["score"] for each in detections], np.float32).reshape(-1),
        np.array([each["label"] for each in detections], np.int32).reshape(-1),
    )
    if not len(found.boxes_xyxy) == len(found.scores) == len(detections):
        raise FieldError("has a detection whose box has not four numbers")
    return TestImage(image_HW3, found)
