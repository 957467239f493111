"""Makes a data set of small objects, and times detection in tiles beside tile-by-tile calls.

python -m benchmarks.small_objects make --photographs=coco_val100 --output=small [--canvases=20] [--seed=0]
python -m benchmarks.small_objects time --weights=yolox_nano --image=small/images/0.jpg [--slices=3x3] [--rounds=7]

`make` pastes photographs with COCO boxes small into canvases of 2000x1500 pixels of smooth noise, at whole pixels and
exact scales, so that the boxes are exact. The AP is eval.py's:

python eval.py --config=configs/yolox_nano.py --weights=yolox_nano --config.data.root=small \
    --config.data.val=annotations.json --config.data.val_images=images [--config.eval.detect.slices=auto]
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from benchmarks import machine, turns
from yolox_jax.data import images
from yolox_jax.data.tiling import Tiling
from yolox_jax.detection import nms
from yolox_jax.detection.kernels.map_images import over_tiles
from yolox_jax.inference import pretrained
from yolox_jax.inference.detector import Detector
from yolox_jax.models.folding import fold_batch_norm

_WIDTH, _HEIGHT = 2000, 1500
_SIDES = (160, 320)  # of a pasted photograph's longer side
_CELL = 340  # each photograph has a cell of its own, and lies anywhere in it
_JPEG_QUALITY = 95
_NEEDED = {"make": ("photographs", "output"), "time": ("weights", "image")}  # arguments by action


def make(photographs: Path, output: Path, canvases: int, seed: int) -> None:
    """Writes images/ and annotations.json."""
    rng = np.random.default_rng(seed)
    content = json.loads((photographs / "annotations.json").read_text())
    boxes_of: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        boxes_of.setdefault(annotation["image_id"], []).append(annotation)
    (output / "images").mkdir(parents=True)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": content["categories"]}
    for number in range(canvases):
        canvas = _noise(rng)
        truth["images"].append({"id": number, "file_name": f"{number}.jpg", "width": _WIDTH, "height": _HEIGHT})
        cells = [(x, y) for y in range(0, _HEIGHT - _CELL, _CELL) for x in range(0, _WIDTH - _CELL, _CELL)]
        chosen = rng.choice(len(content["images"]), len(cells), replace=False)
        for (cell_x, cell_y), index in zip(cells, chosen.tolist(), strict=True):
            photograph = content["images"][index]
            pixels = images.read(photographs / "images" / photograph["file_name"])
            scale = rng.integers(*_SIDES) / max(pixels.shape[:2])
            small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            height, width = small.shape[:2]
            x, y = (int(rng.integers(low, low + _CELL - side)) for low, side in ((cell_x, width), (cell_y, height)))
            canvas[y : y + height, x : x + width] = small
            exact = width / pixels.shape[1], height / pixels.shape[0]
            for box in boxes_of.get(photograph["id"], []):
                bbox = [value * exact[i % 2] + (x, y, 0, 0)[i] for i, value in enumerate(box["bbox"])]
                area = box["area"] * exact[0] * exact[1]
                record = {"id": len(truth["annotations"]) + 1, "image_id": number, "bbox": bbox, "area": area}
                truth["annotations"].append({**box, **record})
        cv2.imwrite(str(output / "images" / f"{number}.jpg"), canvas, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    (output / "annotations.json").write_text(json.dumps(truth))
    areas = [each["area"] for each in truth["annotations"]]
    print(f"{canvases} images, {len(areas)} boxes, {np.mean(np.less(areas, 32**2)):.0%} of them small in COCO's terms")


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Returns a canvas of smooth noise around gray."""
    coarse = rng.integers(90, 140, (_HEIGHT // 50, _WIDTH // 50, 3)).astype(np.uint8)
    return cv2.resize(coarse, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)


def time_tiles(weights: str, path: Path, slices: str, rounds: int) -> None:
    """Times one call for all tiles beside a call for each tile with one NMS after them, as slicing libraries do.

    Both go from the decoded image to boxes. Then the parts of ours: cutting, and the network alone, in both forms.
    """
    image, tiling = images.read(path), Tiling(slices, 0.2)
    in_one = Detector.from_pretrained(weights, slices=slices, log=lambda text: None)
    alone = Detector.from_pretrained(weights, log=lambda text: None)
    iou = pretrained.DETECTOR_CONFIG.iou
    keep = jax.jit(lambda boxes, labels, mask: nms.keep_mask(boxes, labels, mask, iou))

    def one_by_one() -> int:
        boxes, scores, labels = [], [], []
        for x1, y1, x2, y2 in tiling.regions(image.shape[:2], alone.size_hw):
            found = alone.detect_bgr([image[y1:y2, x1:x2]])[0]
            boxes.append(found.boxes_xyxy + np.array([x1, y1, x1, y1], np.float32))
            scores.append(found.scores)
            labels.append(found.labels)
        order = np.argsort(-np.concatenate(scores))[:1000]
        room = 1000 - len(order)  # one shape, so that it compiles once
        joined = [np.concatenate(each)[order] for each in (boxes, labels)]
        padded = [np.pad(each, [(0, room)] + [(0, 0)] * (each.ndim - 1)) for each in joined]
        return int(np.asarray(keep(*padded, np.arange(1000) < len(order))).sum())

    contenders: dict[str, Callable[[], Any]] = {
        turns.OURS: lambda: len(in_one.detect_bgr([image])[0]),
        "tile by tile": one_by_one,
    }
    num_tiles = len(tiling.regions(image.shape[:2], alone.size_hw))
    counts = {name: run() for name, run in contenders.items()}
    contenders |= {"cutting": lambda: tiling.cut(image, alone.size_hw), **_network_alone(weights, image, tiling)}
    print(f"{num_tiles} tiles with the whole image; objects found: {counts}")
    turns.print_times(f"{slices} of {image.shape[1]}x{image.shape[0]}", turns.take_turns(contenders, rounds), images=1)


def _network_alone(weights: str, image: np.ndarray, tiling: Tiling) -> dict[str, Callable[[], Any]]:
    """Returns runs of the network on the tiles of an image, which lie on the device: in one program, and in calls."""
    loaded = pretrained.load(weights)
    variables = jax.device_put(fold_batch_norm(loaded.model, loaded.variables, jax.default_backend()))
    tiles = tiling.cut(image, loaded.size_hw)
    on_device = jax.device_put((tiles.images, tiles.mask))
    singles = [jax.device_put(each[None]) for each in tiles.images[tiles.mask]]

    @jax.jit
    def see(variables: Any, pixels: jax.Array) -> Any:
        return loaded.model.apply(variables, pixels.astype(np.float32), train=False)

    @jax.jit
    def see_all(variables: Any, pixels: jax.Array, mask: jax.Array) -> Any:
        return over_tiles(lambda pixels: see(variables, pixels), pixels, mask)

    return {
        "network": lambda: jax.block_until_ready(see_all(variables, *on_device)),
        "network by tile": lambda: [jax.block_until_ready(see(variables, pixels)) for pixels in singles],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "time"))
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--canvases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--slices", default="3x3")
    parser.add_argument("--rounds", type=int, default=7)
    is_timed = "time" in sys.argv[1:]
    given = machine.parse_quiet(parser) if is_timed else parser.parse_args()
    machine.check_given(parser, given, _NEEDED)
    if given.action == "make":
        make(given.photographs, given.output, given.canvases, given.seed)
    else:
        time_tiles(given.weights, given.image, given.slices, given.rounds)


if __name__ == "__main__":
    main()
