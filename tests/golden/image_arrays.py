"""Mosaic, mixup, letterbox, color and resize of the official code, as arrays."""

import random
from typing import Any
from unittest import mock

import cv2
import numpy as np

from tests.golden.official_yolox import Arrays, Official, seeded
from tests.material import golden


def make_mosaic(official: Official) -> dict[str, Any]:
    """Places four images on the canvas and warps it, with their boxes."""
    rng, (height, width) = seeded("augment"), (160, 192)
    arrays: Arrays = {}
    for i, size_hw in enumerate([(120, 160), (200, 150), (90, 240), (180, 180)]):
        arrays[f"image{i}"] = image = photo(*size_hw, i)
        corners = rng.uniform(0, 0.6, (3, 2)) * image.shape[1::-1]
        sides = rng.uniform(0.1, 0.4, (3, 2)) * image.shape[1::-1]
        arrays[f"boxes{i}_xyxy"] = np.concatenate([corners, corners + sides], 1).astype(np.float32)
    center_y, center_x = (int(rng.uniform(0.5 * side, 1.5 * side)) for side in (height, width))
    canvas, placed = np.full((2 * height, 2 * width, 3), 114, np.uint8), []
    for i in range(4):
        image = arrays[f"image{i}"]
        ratio = min(height / image.shape[0], width / image.shape[1])
        image = cv2.resize(image, (int(image.shape[1] * ratio), int(image.shape[0] * ratio)))
        (x1, y1, x2, y2), (u1, v1, u2, v2) = official.mosaic.get_mosaic_coordinate(
            canvas, i, center_x, center_y, image.shape[1], image.shape[0], height, width
        )
        canvas[y1:y2, x1:x2] = image[v1:v2, u1:u2]
        boxes = arrays[f"boxes{i}_xyxy"] * ratio + [x1 - u1, y1 - v1, x1 - u1, y1 - v1]
        placed.append(np.clip(boxes, 0, [2 * width, 2 * height, 2 * width, 2 * height]))
    random.seed(5)
    matrix, scale = official.augment.get_affine_matrix((width, height), 10.0, 0.1, (0.5, 1.5), 2.0)
    targets = np.concatenate([np.concatenate(placed), np.zeros((12, 1))], 1)
    arrays |= {"center_yx": np.array([center_y, center_x]), "size_hw": np.array([height, width])}
    arrays |= {"matrix": matrix, "canvas": canvas}
    arrays["warped"] = cv2.warpAffine(canvas, matrix, dsize=(width, height), borderValue=(114, 114, 114))
    warped = official.augment.apply_affine_to_bboxes(targets, (width, height), matrix, scale)
    return {"augment_mosaic.npz": arrays | {"warped_boxes_xyxy": warped[:, :4]}}


def photo(height: int, width: int, key: object) -> np.ndarray:
    noise = seeded("photo", key).uniform(0, 255, (height, width, 3)).astype(np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), 6)
    return ((image - image.min()) / (image.max() - image.min()) * 255).astype(np.uint8)


def make_mixup(official: Official) -> dict[str, Any]:
    """Runs MosaicDetection.mixup at the images, boxes and draws of augment_mixup.npz."""
    kept = golden("augment_mixup")
    arrays = dict(kept)
    for case in range(3):
        name = f"{case}/{{}}".format
        picture, image, boxes = (kept[name(key)] for key in ("picture", "image", "boxes_xyxy"))
        labels = np.concatenate([boxes, np.zeros((len(boxes), 1))], 1)
        source = mock.Mock(input_dim=picture.shape[:2])
        source.load_anno.return_value, source.pull_item.return_value = labels, (image, labels, None, None)
        source.__len__ = mock.Mock(return_value=1)
        dataset = official.mosaic.MosaicDetection(source, picture.shape[:2])
        floats = [float(kept[name("scale")]), float(kept[name("flip")])]  # a flip is a draw above 0.5
        offset_y, offset_x = kept[name("offset_yx")].tolist()
        jittered = [int(side * floats[0]) for side in picture.shape[:2]]
        integers = [0]  # which image, then the offsets, each drawn only where there is a choice
        integers += [offset_y] if jittered[0] > picture.shape[0] else []
        integers += [offset_x] if jittered[1] > picture.shape[1] else []
        with mock.patch.multiple(
            random, uniform=mock.Mock(side_effect=floats), randint=mock.Mock(side_effect=integers)
        ):
            blend, blended = dataset.mixup(picture, np.zeros((0, 5)), picture.shape[:2])
        arrays |= {name("blend"): blend, name("blend_boxes_xyxy"): blended[:, :4]}
    return {"augment_mixup.npz": arrays}


def make_letterbox(official: Official) -> dict[str, Any]:
    """Letterboxes three images."""
    arrays: Arrays = {}
    for i, (size_hw, input_hw) in enumerate([((120, 200), (160, 160)), ((333, 127), (160, 192)), ((50, 60), (96, 64))]):
        image = photo(*size_hw, f"lb{i}")
        fitted, ratio = official.augment.preproc(image, input_hw)
        arrays |= {f"{i}/in_bgr": image, f"{i}/size_hw": np.array(input_hw), f"{i}/ratio": np.float64(ratio)}
        arrays[f"{i}/out_bgr"] = fitted.transpose(1, 2, 0).astype(np.uint8)
    return {"augment_letterbox.npz": arrays}


def make_device(official: Official) -> dict[str, Any]:
    """Shifts colors by augment_hsv at given draws, and resizes by torch's bilinear interpolation."""
    arrays: Arrays = {}
    for i, gains in enumerate([(5, 30, -30), (-4, 0, 12), (0, -25, 20), (3, 11, 0)]):
        image = photo(64, 80, f"hsv{i}")
        arrays |= {f"hsv/{i}/in_bgr": image, f"hsv/{i}/gains": np.array(gains, np.int16)}
        shifted = image.copy()
        draws = {"uniform": mock.Mock(return_value=np.ones(3)), "randint": mock.Mock(return_value=np.ones(3, int))}
        with mock.patch.multiple(np.random, **draws):
            official.augment.augment_hsv(shifted, *gains)
        arrays[f"hsv/{i}/out_bgr"] = shifted
    arrays["resize/in"] = image = photo(96, 128, "ms").astype(np.float32)
    nchw = official.torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    for size in ((64, 96), (128, 160)):
        resized = official.torch.nn.functional.interpolate(nchw, size=size, mode="bilinear", align_corners=False)
        arrays[f"resize/{size[0]}x{size[1]}"] = resized[0].numpy().transpose(1, 2, 0)
    return {"augment_device.npz": arrays}
